//! The path of a cgroup in, the id of the container that runs in it out. Knows the forms that docker, podman, containerd,
//! CRI-O, Kubernetes, LXC and systemd-nspawn give their paths; never looks anything up.

/// Shortest id of a container in hexadecimal; engines write 64 digits.
const SHORTEST: usize = 32;
/// What engines put before an id, in `PREFIX-ID.scope` and in `PREFIX-ID`.
const PREFIXES: [&str; 6] = ["docker-", "libpod-", "cri-containerd-", "crio-", "nerdctl-", "containerd-"];

/// The innermost container of a path; `None` when it is of none.
pub fn container_of(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(id)
}

fn id(part: &str) -> Option<&str> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(name).filter(|name| !name.is_empty());
    }
    if let Some(name) = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope")) {
        return Some(name).filter(|name| !name.is_empty());
    }
    let part = part.strip_suffix(".scope").unwrap_or(part);
    // Podman's monitor stands in a scope of its own beside the container: it is none.
    if part.starts_with("libpod-conmon-") || part.starts_with("crio-conmon-") {
        return None;
    }
    let bare = PREFIXES.iter().find_map(|prefix| part.strip_prefix(prefix)).unwrap_or(part);
    // Containerd without systemd joins slice, engine and id by colons.
    let bare = bare.rsplit(':').next().unwrap_or(bare);
    let hex = bare.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex && bare.len() >= SHORTEST).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f9a1c0de4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff";

    #[test]
    fn the_forms_of_all_engines_are_known() {
        for form in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1_2.slice/crio-ID.scope",
            "/kubepods/besteffort/pod0f0e/ID",
            "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID",
            "/default/ID",
        ] {
            assert_eq!(container_of(&form.replace("ID", ID)), Some(ID), "{form}");
        }
        assert_eq!(container_of("/lxc.payload.web-1"), Some("web-1"));
        assert_eq!(container_of("/machine.slice/machine-debian.scope/payload"), Some("debian"));
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in ["", "/", "/system.slice/ssh.service", "/user.slice/user-1000.slice/session-4.scope", "/docker/abc"]
        {
            assert_eq!(container_of(path), None, "{path}");
        }
        assert_eq!(container_of(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
    }
}
