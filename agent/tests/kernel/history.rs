//! The history under the hardest end there is. Needs no probe: it is here because the writer has to be a process.

use std::path::Path;

use tidegate::aggregate::lost::Lost;
use tidegate::history::{History, Keeping, Reader, Record, Store, When, Wish, database_in};
use tidegate::profile::Packed;
use tidegate::profile::model::{Builder, Origin, Owner};
use tidegate::units::{Bytes, Nanos, ProfileKind};

use crate::kit::Subject;

pub(crate) const CASES: &[(&str, fn())] =
    &[("killed_200_times_while_it_writes_the_history_stays_whole", killed_200_times_while_it_writes)];

const KILLS: u32 = 200;

fn keeping(directory: &Path) -> Keeping {
    Keeping { directory: directory.to_owned(), most: Bytes(8 << 20), longest: Nanos::MAX }
}

/// Writes one window after the other, until it is killed.
pub(crate) fn write_for_ever(directory: &str, tell: fn(&str)) {
    let mut store = Store::open(&database_in(Path::new(directory)), "boot", &keeping(Path::new(directory)));
    tell("ready");
    let Ok(store) = &mut store else { panic!("the history does not open: {store:?}") };
    for nth in 0_u64.. {
        let mut builder = Builder::default();
        let owner = builder.owner(Owner { pid: None, uid: None, comm: "app".into(), cgroup: None, container: None });
        for n in 0..400_u64 {
            let name = format!("{:x}", (n + nth).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let frame = builder.frame(&name, Origin::User);
            builder.add(owner, &[frame], 1, 1);
        }
        let start = tidegate::source::clock::monotonic();
        let window = Packed::of(&builder.finish(ProfileKind::Cpu, start, start + Nanos(1), Lost::default()));
        let when = When { now: start, wall: start };
        store.put(&[Record::Window(window)], when).expect("the disk takes it");
    }
}

fn killed_200_times_while_it_writes() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    std::fs::create_dir(&state).expect("a directory");
    let all = Wish { span: (Nanos(0), Nanos::MAX), wall: None, before: Nanos::MAX };
    let mut windows = 0;
    for kill in 0..KILLS {
        let writer = Subject::start(&format!("history {}", state.display()));
        // A different moment each time, from the first write to deep in the log.
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(kill * 7 % 41) * 400_000 };
        drop(rustix::thread::nanosleep(&pause));
        drop(writer); // By SIGKILL.
        let reader = Reader::new(database_in(&state), "boot".to_owned());
        let mut seen = 0_u64;
        let found = reader.windows(ProfileKind::Cpu, &all, |window, _| {
            window.unpack().expect("a window is whole or not there");
            seen += 1;
        });
        let found = found.unwrap_or_else(|error| panic!("after kill {kill}: {error}"));
        assert_eq!(found.damaged, 0, "after kill {kill}");
        assert!(seen >= windows || seen > 100, "after kill {kill} {seen} of {windows} windows are left");
        windows = seen;
    }
    assert!(windows > 100, "only {windows} windows were written");
    let history = History::start(keeping(&state)).expect("the next agent takes it over");
    while history.status().bytes == 0 {
        drop(rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
        assert_eq!(history.status().degraded(), Vec::<String>::new());
    }
    assert_eq!(history.status().put_aside, None);
}
