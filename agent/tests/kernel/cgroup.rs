//! Who is seen when a cgroup is watched: those in it and below it, and nobody else.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Scope, Wanted};
use tidegate::units::{CgroupId, Nanos};

use crate::kit::{Probes, Subject};
use crate::say;

pub(crate) const CASES: &[(&str, fn())] = &[("only_those_below_a_watched_cgroup_are_seen", below)];

/// A cgroup with another one in it; both are gone with this value, whose processes must have ended by then.
struct Group {
    outer: PathBuf,
    inner: PathBuf,
}

impl Group {
    /// None where there is no such hierarchy.
    fn new() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("every process has a list of mounts");
        let mounted = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = mounted.and_then(|line| line.split(' ').nth(1))?;
        let outer = Path::new(root).join(format!("tidegate-test-{}", std::process::id()));
        let inner = outer.join("below");
        std::fs::create_dir_all(&inner).expect("root may make a cgroup");
        Some(Self { outer, inner })
    }

    fn id(&self) -> CgroupId {
        CgroupId(std::fs::metadata(&self.outer).expect("it was made above").ino())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _empty = std::fs::remove_dir(&self.inner).and_then(|()| std::fs::remove_dir(&self.outer));
    }
}

fn below() {
    let Some(group) = Group::new() else {
        return say("watching a cgroup is not tested: no cgroup2 hierarchy is mounted");
    };
    let (mut inside, mut outside) = (Subject::start("spin 1500"), Subject::start("spin 1500"));
    std::fs::write(group.inner.join("cgroup.procs"), inside.pid().0.to_string()).expect("root may move a process");
    let mut probes = Probes::load(LoadOptions { hertz: 997, ..LoadOptions::default() });
    let scope = Scope::Cgroups(BTreeSet::from([group.id()]));
    probes.watch(&Wanted { cpu: Some(scope.clone()), sched: Some(scope), ..Wanted::default() });
    probes.run_for(Nanos::from_millis(300));
    inside.go();
    outside.go();
    probes.run_for(Nanos::from_millis(1800));
    probes.flush();
    let sampled: BTreeSet<_> = probes.seen().samples.iter().map(|sample| sample.pid).collect();
    let followed: BTreeSet<_> = probes.seen().threads.iter().map(|(_, row)| row.pid).collect();
    assert_eq!(sampled, BTreeSet::from([inside.pid()]), "of {} and {}", inside.pid(), outside.pid());
    assert_eq!(followed, BTreeSet::from([inside.pid().0]), "of {} and {}", inside.pid(), outside.pid());
    drop((inside, outside));
}
