//! Ids of cgroups in, their paths out: by the process that a sample came from while it lives, else by a walk over the
//! hierarchy, where the number of a directory is the id. Bounded, and never asks twice for what is not there.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::units::{CgroupId, Pid};

/// Paths kept; the table is emptied when it is full.
const MOST: usize = 16_384;
/// Directories looked at in one walk.
const MOST_DIRECTORIES: usize = 20_000;
/// The root of the hierarchy, or a hierarchy that the host does not use: the processes tell more.
const ROOT: u64 = 1;

/// Knows paths of cgroups.
#[derive(Debug)]
pub struct Cgroups {
    hierarchy: Option<PathBuf>,
    proc: PathBuf,
    by_id: HashMap<CgroupId, Option<Arc<str>>>,
    by_process: HashMap<Pid, Option<Arc<str>>>,
    may_walk: bool,
}

impl Cgroups {
    /// Of this host.
    pub fn here() -> Self {
        Self::under(hierarchy(Path::new("/proc/self/mounts")), "/proc".into())
    }

    fn under(hierarchy: Option<PathBuf>, proc: PathBuf) -> Self {
        Self { hierarchy, proc, by_id: HashMap::new(), by_process: HashMap::new(), may_walk: true }
    }

    /// A new window begins: what was not found is looked for again, once.
    pub fn refresh(&mut self) {
        self.may_walk = true;
        self.by_process.clear();
        self.by_id.retain(|_, path| path.is_some());
    }

    /// The path of a cgroup that `pid` was in.
    pub fn path(&mut self, id: CgroupId, pid: Pid) -> Option<Arc<str>> {
        if id.0 > ROOT {
            if let Some(known) = self.by_id.get(&id) {
                return known.clone();
            }
            let found = self.of_process(pid).filter(|path| self.has_id(path, id)).or_else(|| self.walk(id));
            make_room(&mut self.by_id);
            self.by_id.insert(id, found.clone());
            return found;
        }
        if let Some(known) = self.by_process.get(&pid) {
            return known.clone();
        }
        let found = self.of_process(pid);
        make_room(&mut self.by_process);
        self.by_process.insert(pid, found.clone());
        found
    }

    /// What the process itself says: its place in the unified hierarchy, or the deepest in the old ones.
    fn of_process(&self, pid: Pid) -> Option<Arc<str>> {
        let text = fs::read_to_string(self.proc.join(pid.0.to_string()).join("cgroup")).ok()?;
        let paths = || text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let unified = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
        let deepest = || paths().max_by_key(|path| path.split('/').filter(|part| !part.is_empty()).count());
        unified.or_else(deepest).map(Arc::from)
    }

    fn has_id(&self, path: &str, id: CgroupId) -> bool {
        let directory = self.hierarchy.as_ref().map(|root| root.join(path.trim_start_matches('/')));
        directory.and_then(|directory| fs::metadata(directory).ok()).is_some_and(|found| found.ino() == id.0)
    }

    /// Notes every directory of the hierarchy: once a window at most.
    fn walk(&mut self, wanted: CgroupId) -> Option<Arc<str>> {
        if !std::mem::replace(&mut self.may_walk, false) {
            return None;
        }
        let root = self.hierarchy.clone()?;
        let mut waiting = vec![root.clone()];
        let mut looked = 0;
        while let Some(directory) = waiting.pop() {
            looked += 1;
            if looked > MOST_DIRECTORIES {
                break;
            }
            if let (Ok(found), Ok(path)) = (fs::metadata(&directory), directory.strip_prefix(&root)) {
                make_room(&mut self.by_id);
                let path = format!("/{}", path.to_string_lossy());
                self.by_id.insert(CgroupId(found.ino()), Some(path.into()));
            }
            let inside = fs::read_dir(&directory).into_iter().flatten().flatten();
            waiting.extend(inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        self.by_id.get(&wanted).cloned().flatten()
    }
}

fn make_room<K: Eq + std::hash::Hash>(table: &mut HashMap<K, Option<Arc<str>>>) {
    if table.len() >= MOST {
        table.clear();
    }
}

/// Where the unified hierarchy is mounted.
pub(super) fn hierarchy(mounts: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(mounts).ok()?;
    let mut found = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let place = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    found.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cgroup: &str) -> (tempfile::TempDir, Cgroups) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/7")).unwrap();
        fs::write(root.path().join("proc/7/cgroup"), cgroup).unwrap();
        fs::create_dir_all(root.path().join("sys/a.slice/b.service")).unwrap();
        let cgroups = Cgroups::under(Some(root.path().join("sys")), root.path().join("proc"));
        (root, cgroups)
    }

    fn id(root: &tempfile::TempDir, path: &str) -> CgroupId {
        CgroupId(fs::metadata(root.path().join("sys").join(path)).unwrap().ino())
    }

    #[test]
    fn a_process_that_lives_tells_its_own_and_a_walk_finds_the_others() {
        let (root, mut cgroups) = host("0::/a.slice/b.service\n");
        let (b, a) = (id(&root, "a.slice/b.service"), id(&root, "a.slice"));
        assert_eq!(cgroups.path(b, Pid(7)).as_deref(), Some("/a.slice/b.service"));
        assert_eq!(cgroups.path(a, Pid(99)).as_deref(), Some("/a.slice"), "its process has ended");
        // The number has passed to a process elsewhere: the id decides.
        let (root, mut cgroups) = host("0::/elsewhere\n");
        let b = id(&root, "a.slice/b.service");
        assert_eq!(cgroups.path(b, Pid(7)).as_deref(), Some("/a.slice/b.service"));
    }

    #[test]
    fn a_cgroup_that_has_gone_costs_one_walk_a_window() {
        let (root, mut cgroups) = host("");
        assert_eq!(cgroups.path(CgroupId(u64::MAX), Pid(99)), None);
        fs::create_dir(root.path().join("sys/late.slice")).unwrap();
        let late = id(&root, "late.slice");
        assert_eq!(cgroups.path(late, Pid(99)), None, "one walk was enough for this window");
        cgroups.refresh();
        assert_eq!(cgroups.path(late, Pid(99)).as_deref(), Some("/late.slice"));
    }

    #[test]
    fn old_hierarchies_are_told_by_the_process() {
        let (_root, mut cgroups) = host("4:memory:/docker/abc\n3:cpu:/\n0::/\n");
        assert_eq!(cgroups.path(CgroupId(1), Pid(7)).as_deref(), Some("/docker/abc"));
        assert_eq!(cgroups.path(CgroupId(0), Pid(99)), None);
    }
}
