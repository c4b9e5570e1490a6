//! Opens what a symbolizer may look at: a mapping in, a descriptor that has been checked out. Follows what the process has
//! mapped and not what lies at its path by now, in the process's own mount namespace, and never waits for a pipe.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2};
use rustix::io::Errno;

use super::spaces::{Backing, CodeMapping};
use super::stats::Refusal;
use super::wire::{FileKey, Wish};
use crate::units::Pid;

/// Longest ELF file that is read.
const LONGEST_ELF: u64 = 4 << 30;
/// Longest perf map that is read.
const LONGEST_MAP: u64 = 64 << 20;
/// Where debug files are installed.
const DEBUG_DIR: &str = "usr/lib/debug";

/// A file that has been opened and checked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) key: FileKey,
}

/// To look at a file without opening it: opening alone wakes some devices.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// To read it, once it is known to be regular.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The file of a mapping.
pub(super) fn of_mapping(pid: Pid, mapping: &CodeMapping) -> Result<Opened, Refusal> {
    let Backing::File { dev, inode, path } = &mapping.backing else { return Err(Refusal::NotRegular) };
    // By what is mapped: deleted, replaced and hidden files too. Needs CAP_CHECKPOINT_RESTORE.
    let mapped = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.begin, mapping.end);
    if let Ok(fd) = open(&mapped, LOOK, Mode::empty()) {
        return check(&fd, LONGEST_ELF);
    }
    // By its path, as the process sees it or, after it has ended, as everybody does. Then it has to be the same file.
    let fd = in_root(pid, path).or_else(|_ended| in_root_of("/", path));
    let opened = check(&fd.map_err(refusal)?, LONGEST_ELF)?;
    if opened.key.inode != *inode || (opened.key.dev != *dev && *dev != 0) {
        return Err(Refusal::Replaced);
    }
    Ok(opened)
}

/// The perf map of a process, in its own `/tmp`, under the number that it has itself.
pub(super) fn perf_map(pid: Pid) -> Result<Option<Opened>, Refusal> {
    let process = i32::try_from(pid.0).ok().and_then(|pid| procfs::process::Process::new(pid).ok());
    let Some(process) = process else { return Ok(None) };
    let Some(status) = process.status().ok() else { return Ok(None) };
    let own_number = status.nspid.as_ref().and_then(|pids| pids.last().copied()).unwrap_or(status.pid);
    let root = open(format!("/proc/{pid}/root"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = match root {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(None),
        Err(_) => return Err(Refusal::NoAccess),
    };
    perf_map_at(root, Path::new("tmp"), own_number, &[status.ruid, status.euid, 0])
}

/// The perf map `number` in `folder`, if it is a regular file of one of `owners`.
fn perf_map_at(root: impl AsFd, folder: &Path, number: i32, owners: &[u32]) -> Result<Option<Opened>, Refusal> {
    let path = folder.join(format!("perf-{number}.map"));
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match openat2(root, &path, LOOK | OFlags::NOFOLLOW, Mode::empty(), how) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(refusal(errno)),
    };
    let stat = fstat(&fd).map_err(refusal)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && !owners.contains(&stat.st_uid) {
        return Err(Refusal::Foreign);
    }
    check(&fd, LONGEST_MAP).map(Some)
}

/// The file that `wish` asks for, where debug files lie: in the root of the process first, then in the host's.
pub(super) fn debug_file(pid: Pid, beside: &str, wish: &Wish) -> Option<Opened> {
    let mut places = Vec::new();
    if let Some(id) = wish.build_id.as_deref().filter(|id| id.len() > 2 && id.len() <= 64 && is_hex(id)) {
        let (folder, rest) = id.split_at(2);
        places.push(format!("{DEBUG_DIR}/.build-id/{folder}/{rest}.debug"));
    }
    if let Some(name) = wish.name.as_deref().filter(|name| is_harmless(name)) {
        let folder = Path::new(beside).parent().unwrap_or(Path::new("/"));
        let folder = folder.to_string_lossy();
        if Path::new(name).components().count() == 1 {
            places.push(format!("{folder}/{name}"));
            places.push(format!("{folder}/.debug/{name}"));
            places.push(format!("{DEBUG_DIR}/{folder}/{name}"));
        } else {
            // Shared debug files are named by path, from their own or from the debug folder.
            places.push(name.to_owned());
            places.push(format!("{DEBUG_DIR}/{folder}/{name}"));
        }
    }
    let tries = places.iter().flat_map(|place| [in_root(pid, place), in_root_of("/", place)]);
    tries.flatten().find_map(|fd| check_named(&fd))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name that a hostile file chose: no control characters, not absurdly long. Where it leads is held by the root.
fn is_harmless(name: &str) -> bool {
    !name.is_empty() && name.len() < 1024 && !name.chars().any(char::is_control) && !matches!(name, "." | "..")
}

/// The code that the kernel lends to processes, copied from this one: it is the same for all.
pub(super) fn vdso() -> Option<Opened> {
    let maps = procfs::process::Process::myself().ok()?.maps().ok()?;
    let map = maps.into_iter().find(|map| map.pathname == procfs::process::MMapPath::Vdso)?;
    let length = usize::try_from(map.address.1.checked_sub(map.address.0)?).ok().filter(|n| *n < 1 << 20)?;
    let memory = open("/proc/self/mem", READ, Mode::empty()).ok()?;
    let mut bytes = vec![0; length];
    let got = rustix::io::pread(&memory, &mut bytes, map.address.0).ok()?;
    let copy = rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let written = rustix::io::write(&copy, bytes.get(..got)?).ok()?;
    let key = key_of(&copy)?;
    (written == got && got > 0).then_some(Opened { fd: copy, key })
}

/// Identity of an open file as it is now.
pub(super) fn key_of(fd: impl AsFd) -> Option<FileKey> {
    fstat(fd).ok().map(|stat| key(&stat))
}

fn in_root(pid: Pid, path: &str) -> Result<OwnedFd, Errno> {
    in_root_of(&format!("/proc/{pid}/root"), path)
}

/// Links are followed as the process would, and never out of its root.
fn in_root_of(root: &str, path: &str) -> Result<OwnedFd, Errno> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let normal = Path::new(path).components().filter(|c| !matches!(c, Component::RootDir | Component::Prefix(_)));
    let path: std::path::PathBuf = normal.collect();
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, &path, LOOK, Mode::empty(), how)
}

/// Opens what was only looked at so far.
fn check(seen: &OwnedFd, longest: u64) -> Result<Opened, Refusal> {
    let stat = fstat(seen).map_err(refusal)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(Refusal::Link),
        _ => return Err(Refusal::NotRegular),
    }
    let key = key(&stat);
    if key.size > longest {
        return Err(Refusal::TooLong);
    }
    let fd = open(format!("/proc/self/fd/{}", seen.as_raw_fd()), READ, Mode::empty()).map_err(refusal)?;
    Ok(Opened { fd, key })
}

/// A file that only a name in another file leads to: shown if anybody may read it, or else a binary could name a secret.
fn check_named(seen: &OwnedFd) -> Option<Opened> {
    let stat = fstat(seen).ok()?;
    Mode::from_raw_mode(stat.st_mode).contains(Mode::ROTH).then(|| check(seen, LONGEST_ELF).ok()).flatten()
}

fn key(stat: &Stat) -> FileKey {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    FileKey {
        dev: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
        modified_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanos),
    }
}

fn refusal(errno: Errno) -> Refusal {
    match errno {
        Errno::LOOP => Refusal::Link,
        // A socket, or a device without a driver.
        Errno::NXIO | Errno::NODEV => Refusal::NotRegular,
        _ => Refusal::NoAccess,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    fn look(folder: &Path, owners: &[u32]) -> Result<Option<Opened>, Refusal> {
        perf_map_at(File::open("/").unwrap(), folder, 7, owners)
    }

    #[test]
    fn a_perf_map_is_read_only_if_it_is_what_it_should_be() {
        let folder = tempfile::tempdir().unwrap();
        let me = rustix::process::getuid().as_raw();
        let path = folder.path().join("perf-7.map");
        assert!(look(folder.path(), &[me]).unwrap().is_none(), "there is none");
        fs::write(&path, "7f00 10 work\n").unwrap();
        assert_eq!(look(folder.path(), &[me]).unwrap().unwrap().key.size, 13);
        assert_eq!(look(folder.path(), &[me + 1]).unwrap_err(), Refusal::Foreign);
        File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(look(folder.path(), &[me]).unwrap_err(), Refusal::TooLong);
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert_eq!(look(folder.path(), &[me, 0]).unwrap_err(), Refusal::Link);
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(look(folder.path(), &[me]).unwrap_err(), Refusal::NotRegular, "and it did not wait for a writer");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(look(folder.path(), &[me]).unwrap_err(), Refusal::NotRegular);
    }

    #[test]
    fn a_debug_link_does_not_lead_out_of_the_root_and_names_are_checked() {
        for bad in ["", "..", "a\nb", &"x".repeat(2000)] {
            assert!(!is_harmless(bad), "{bad}");
        }
        let pid = Pid(std::process::id());
        let wish = Wish { build_id: Some("../../../etc/passwd".to_owned()), name: None };
        assert!(debug_file(pid, "/usr/bin/app", &wish).is_none());
    }

    #[test]
    fn the_vdso_can_be_had() {
        assert!(vdso().unwrap().key.size > 0);
    }
}
