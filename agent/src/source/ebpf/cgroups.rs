//! The kernel side's list of watched cgroups: ids in, ids with their depth out, since a probe can only ask for the ancestor
//! of a thread at a depth. It never watches a part of what was asked for in silence.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use agent_common::{WATCHED_CGROUPS, WatchedCgroup};
use aya::maps::{Array, MapData};

use crate::kernel::LoadError;
use crate::source::cgroups::hierarchy;
use crate::units::CgroupId;

const DEEPEST: u32 = 32;

/// Sets the list: each cgroup with the bits of the probes that want it.
pub(super) fn watch(
    list: &mut Array<MapData, WatchedCgroup>,
    wanted: &BTreeMap<CgroupId, u32>,
) -> Result<(), LoadError> {
    let refused = |what, cause: String| LoadError::System { what, cause: std::io::Error::other(cause) };
    if wanted.len() > WATCHED_CGROUPS {
        let cause = format!("{} are wanted, {WATCHED_CGROUPS} can be (name one above them instead)", wanted.len());
        return Err(refused("watch cgroups", cause));
    }
    if wanted.is_empty() {
        return set(list, vec![WatchedCgroup::default(); WATCHED_CGROUPS]);
    }
    let root = hierarchy(Path::new("/proc/self/mounts"))
        .ok_or_else(|| refused("watch cgroups", "no cgroup2 hierarchy is mounted (mount -t cgroup2)".to_owned()))?;
    let mut entries = vec![WatchedCgroup::default(); WATCHED_CGROUPS];
    for (entry, (id, bits)) in entries.iter_mut().zip(wanted) {
        let level = level(&root, id.0, 0)
            .ok_or_else(|| refused("watch a cgroup", format!("none below {} has the id {}", root.display(), id.0)))?;
        *entry = WatchedCgroup { id: id.0, level, bits: *bits };
    }
    set(list, entries)
}

fn set(list: &mut Array<MapData, WatchedCgroup>, entries: Vec<WatchedCgroup>) -> Result<(), LoadError> {
    for (index, entry) in (0..).zip(entries) {
        list.set(index, entry, 0).map_err(|cause| LoadError::Map { what: "set the list of cgroups", cause })?;
    }
    Ok(())
}

/// The depth of the cgroup `id` below `path`, which is at `depth`. Its id is the inode of its directory.
fn level(path: &Path, id: u64, depth: u32) -> Option<u32> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == id) {
        return Some(depth);
    }
    if depth == DEEPEST {
        return None;
    }
    let entries = std::fs::read_dir(path).ok()?.filter_map(Result::ok);
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| entry.path()).find_map(|path| level(&path, id, depth + 1))
}
