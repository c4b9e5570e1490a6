//! What processes have mapped at this moment, from /proc: for those that ran before anybody listened.

use std::os::unix::ffi::OsStrExt as _;

use procfs::process::{MMPermissions, MMapPath, Process};

use super::sideband::Mapped;

/// Mappings of executable code of a process; `None` when it has ended or has none.
pub(super) fn of(pid: u32) -> Option<Vec<Mapped>> {
    let maps = Process::new(i32::try_from(pid).ok()?).ok()?.maps().ok()?;
    let code = maps.into_iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE));
    let mapped = code.map(|map| Mapped {
        pid,
        begin: map.address.0,
        end: map.address.1,
        offset: map.offset,
        device: (u32::try_from(map.dev.0).unwrap_or(0), u32::try_from(map.dev.1).unwrap_or(0)),
        inode: map.inode,
        name: match map.pathname {
            MMapPath::Path(path) => path.as_os_str().as_bytes().to_vec(),
            MMapPath::Vdso => b"[vdso]".to_vec(),
            _ => Vec::new(),
        },
    });
    let mapped: Vec<Mapped> = mapped.collect();
    (!mapped.is_empty()).then_some(mapped)
}

/// Every process there is.
pub(super) fn pids() -> Vec<u32> {
    let all = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    all.filter_map(|process| u32::try_from(process.pid).ok()).collect()
}

/// Whether any thread of a process whose first thread has ended lives on.
pub(super) fn lives(pid: u32) -> bool {
    let stat = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()?.stat().ok());
    stat.is_some_and(|stat| stat.num_threads > 1 || !matches!(stat.state, 'Z' | 'X'))
}
