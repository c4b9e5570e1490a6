//! The two groups of the socket: names from the configuration in, what a peer may do beyond his own pipelines out.
//! A group that this host does not have grants nothing.
//!
//! Who is in a group is read from the peer's process, where every one of its four user ids is still the one that it
//! connected with: supplementary groups are given by a login and by nothing that such a process can do itself. A process
//! that has become another user's since, or has ended, is in no group.

use nix::unistd::Group;
use procfs::process::Process;

use crate::serve::peer::PeerProcess;
use crate::units::Uid;

/// Names of the groups, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNames {
    /// Members see all profiles, figures and decisions.
    pub read: String,
    /// Members pin, free, roll back, pause and set modes.
    pub tune: String,
}

impl Default for GroupNames {
    fn default() -> Self {
        Self { read: "tidegate-read".to_owned(), tune: "tidegate-tune".to_owned() }
    }
}

/// Numbers of the groups, where this host has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    read: Option<u32>,
    tune: Option<u32>,
}

/// What somebody's groups let him do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// To see what belongs to others.
    pub read: Granted,
    /// To turn knobs that belong to others.
    pub tune: Granted,
}

/// Whether something is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Grants {
    /// Nothing.
    pub const NONE: Self = Self { read: Granted::No, tune: Granted::No };
}

impl Groups {
    /// Looks the names up on this host.
    pub fn look_up(names: &GroupNames) -> Self {
        let number = |name: &str| match Group::from_name(name) {
            Ok(group) => group.map(|group| group.gid.as_raw()),
            Err(error) => {
                tracing::warn!(%name, %error, "a group could not be looked up: it grants nothing");
                None
            }
        };
        Self { read: number(&names.read), tune: number(&names.tune) }
    }

    /// Groups of these numbers.
    pub fn numbered(read: Option<u32>, tune: Option<u32>) -> Self {
        Self { read, tune }
    }

    /// What a peer's process may do.
    pub fn grants(self, uid: Uid, process: Option<PeerProcess>) -> Grants {
        if self == Self::default() {
            return Grants::NONE;
        }
        process.and_then(|process| groups_of(process, uid)).map_or(Grants::NONE, |member| self.of(&member))
    }

    fn of(self, member: &[u32]) -> Grants {
        let granted = |group: Option<u32>| {
            if group.is_some_and(|group| member.contains(&group)) { Granted::Yes } else { Granted::No }
        };
        Grants { read: granted(self.read), tune: granted(self.tune) }
    }
}

/// Supplementary groups of a process that is still the one that connected.
fn groups_of(process: PeerProcess, uid: Uid) -> Option<Vec<u32>> {
    let status = Process::new(i32::try_from(process.pid.0).ok()?).and_then(|p| p.status()).ok()?;
    let same_user = [status.ruid, status.euid, status.suid, status.fuid].iter().all(|id| *id == uid.0);
    // Looked at once more afterwards: the number may have gone to another process in between.
    (same_user && PeerProcess::running(process.pid) == Some(process)).then_some(status.groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;

    #[test]
    fn a_group_that_is_not_there_grants_nothing() {
        let names = GroupNames { read: "no-such-group-1".to_owned(), tune: "no-such-group-2".to_owned() };
        assert_eq!(Groups::look_up(&names), Groups::default());
        assert_eq!(Groups::default().of(&[0, 1, 2]), Grants::NONE);
    }

    #[test]
    fn each_group_grants_its_own() {
        let groups = Groups::numbered(Some(7), Some(8));
        assert_eq!(groups.of(&[7]), Grants { read: Granted::Yes, tune: Granted::No });
        assert_eq!(groups.of(&[1, 8]), Grants { read: Granted::No, tune: Granted::Yes });
    }

    #[test]
    fn groups_count_only_while_the_process_is_the_peers() {
        let me = PeerProcess::running(Pid(std::process::id())).unwrap();
        let uid = Uid(rustix::process::getuid().as_raw());
        let mine = groups_of(me, uid).expect("this process runs as one user");
        let wanted: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert!(wanted.iter().all(|group| mine.contains(group)), "{mine:?} lacks one of {wanted:?}");
        assert_eq!(groups_of(me, Uid(uid.0 + 1)), None, "another user's process");
        assert_eq!(groups_of(PeerProcess { start_ticks: me.start_ticks + 1, ..me }, uid), None, "a later process");
    }
}
