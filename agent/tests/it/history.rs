//! The history: what comes back, what is forgotten, and what becomes of it when the disk is full or the file is damaged.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate::aggregate::lost::Lost;
use tidegate::history::{
    History, Keeping, Note, NoteKind, Placed, Reader, Record, Status, Store, When, Wish, database_in,
};
use tidegate::profile::Packed;
use tidegate::profile::model::{Builder, Origin, Owner};
use tidegate::units::{Bytes, Nanos, Pid, ProfileKind};

const BOOT: &str = "this-boot";
const S: fn(u64) -> Nanos = Nanos::from_secs;

fn keeping(directory: &Path) -> Keeping {
    Keeping { directory: directory.to_owned(), most: Bytes(4 << 20), longest: S(3_600) }
}

/// A window of 10 s with `stacks` stacks that LZ4 cannot make much smaller.
fn window(start: Nanos, stacks: u32) -> Packed {
    let mut builder = Builder::default();
    let owner = Owner { pid: Some(Pid(7)), uid: Some(1000), comm: "app".into(), cgroup: None, container: None };
    let owner = builder.owner(owner);
    for n in 0..stacks {
        let name = format!("{:x}", u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n % 64));
        let frame = builder.frame(&name, Origin::User);
        builder.add(owner, &[frame], 1, 1);
    }
    Packed::of(&builder.finish(ProfileKind::Cpu, start, start + S(10), Lost::default()))
}

fn when(now: u64) -> When {
    When { now: S(now), wall: S(1_700_000_000 + now) }
}

fn open(directory: &Path, boot: &str) -> Store {
    Store::open(&database_in(directory), boot, &keeping(directory)).expect("the database opens")
}

fn all() -> Wish {
    Wish { span: (Nanos(0), Nanos::MAX), wall: Some((Nanos(0), Nanos::MAX)), before: Nanos::MAX }
}

fn starts(file: &Path, boot: &str, wish: &Wish) -> Vec<(u64, bool)> {
    let mut found = Vec::new();
    let visit = |window: Packed, placed| found.push((window.start().0 / S(1).0, placed == Placed::Now));
    Reader::new(file.to_owned(), boot.to_owned()).windows(ProfileKind::Cpu, wish, visit).expect("it can be read");
    found
}

#[test]
fn windows_come_back_in_the_order_of_boots_and_their_own_clock_whatever_the_wall_clock_did() {
    let directory = tempfile::tempdir().unwrap();
    let file = database_in(directory.path());
    let mut store = open(directory.path(), "first");
    let put = |store: &mut Store, start: u64, wall: u64| {
        let when = When { now: S(start + 10), wall: S(wall + 10) };
        store.put(&[Record::Window(window(S(start), 3))], when).unwrap();
    };
    put(&mut store, 5_000, 1_000_000);
    put(&mut store, 5_010, 1_000_010);
    drop(store);
    let mut store = open(directory.path(), "second");
    // The wall clock is set back by a day, and then on by an hour.
    for (start, wall) in [(20, 913_000), (30, 916_610), (40, 916_620)] {
        put(&mut store, start, wall);
    }
    let own = |starts: &[u64]| starts.iter().map(|s| (*s, true)).collect::<Vec<_>>();
    assert_eq!(starts(&file, "second", &all()), [vec![(5_000, false), (5_010, false)], own(&[20, 30, 40])].concat());
    let this_boot = Wish { wall: None, ..all() };
    assert_eq!(starts(&file, "second", &this_boot), own(&[20, 30, 40]));
    assert_eq!(starts(&file, "second", &Wish { span: (S(30), S(40)), ..this_boot }), own(&[30]));
    assert_eq!(starts(&file, "second", &Wish { before: S(40), ..this_boot }), own(&[20, 30]));
    let earlier = Wish { wall: Some((S(1_000_005), S(1_000_009))), span: (S(0), S(1)), ..all() };
    assert_eq!(starts(&file, "second", &earlier), [(5_000, false)]);
}

#[test]
fn what_is_too_old_or_too_much_goes_and_the_newest_stays() {
    let directory = tempfile::tempdir().unwrap();
    let file = database_in(directory.path());
    let mut store = open(directory.path(), BOOT);
    for nth in 0..500 {
        // 4 MiB hold about a hundred of them.
        store.put(&[Record::Window(window(S(nth * 10), 2_000))], when(nth * 10 + 10)).unwrap();
        let (bytes, _) = store.size().unwrap();
        assert!(bytes <= 4 << 20, "{bytes} bytes at window {nth}");
    }
    let kept = starts(&file, BOOT, &all());
    assert!(kept.len() > 50 && kept.last() == Some(&(4_990, true)), "{} windows", kept.len());
    let on_disk: u64 = std::fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(on_disk < 12 << 20, "{on_disk} bytes on disk, the log of the newest writes among them");
    // Two hours later, by this boot's clock.
    store.put(&[Record::Window(window(S(12_000), 1))], when(12_010)).unwrap();
    assert_eq!(starts(&file, BOOT, &all()), [(12_000, true)]);
}

#[test]
fn decisions_and_signals_are_found_by_pipeline_and_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path(), BOOT);
    let note = |kind, pipeline: &str, at| {
        Record::Note(Note { kind, pipeline: pipeline.to_owned(), at: S(at), json: format!("{{\"at\":{at}}}") })
    };
    let notes = [
        note(NoteKind::Decision, "a", 1),
        note(NoteKind::Signals, "a", 2),
        note(NoteKind::Decision, "b", 3),
        note(NoteKind::Decision, "a", 4),
    ];
    store.put(&notes, when(10)).unwrap();
    let reader = Reader::new(store.file().to_owned(), BOOT.to_owned());
    let found = reader.notes(NoteKind::Decision, "a", &Wish { wall: None, ..all() }).unwrap();
    assert_eq!(found, [(S(1_700_000_001), "{\"at\":1}".to_owned()), (S(1_700_000_004), "{\"at\":4}".to_owned())]);
    let late = Wish { span: (S(2), S(9)), wall: None, ..all() };
    assert_eq!(reader.notes(NoteKind::Decision, "a", &late).unwrap().len(), 1);
}

/// Waits until the thread has come so far.
fn until(history: &History, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    for _ in 0..2_000 {
        let status = history.status();
        if holds(&status) {
            return status;
        }
        let nap = rustix::time::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        drop(rustix::thread::nanosleep(&nap));
    }
    panic!("waited in vain until {what}: {:?}", history.status());
}

#[test]
fn a_database_damaged_at_any_place_is_put_aside_or_its_damaged_windows_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut store = open(&state, BOOT);
    for nth in 0..20 {
        store.put(&[Record::Window(window(S(nth * 10), 300))], when(nth * 10 + 10)).unwrap();
    }
    drop(store);
    let good = std::fs::read(database_in(&state)).unwrap();
    let (mut aside, mut left_out) = (0, 0);
    // Every part of the head, and places all over the rest; single bytes, and a cut.
    let places = (0..120).chain((120..good.len()).step_by(good.len() / 60)).map(Some).chain([None]);
    for place in places {
        let mut bytes = good.clone();
        match place {
            Some(at) => bytes[at] ^= 0x5a,
            None => bytes.truncate(good.len() / 2 + 13),
        }
        // The thread of the one before may still be closing its files.
        let state = directory.path().join(format!("at-{place:?}"));
        std::fs::create_dir(&state).unwrap();
        std::fs::write(database_in(&state), &bytes).unwrap();
        let long = Keeping { longest: S(u64::MAX / 2_000_000_000), ..keeping(&state) };
        let history = History::start(long).unwrap();
        history.keep(Record::Window(window(tidegate::source::clock::monotonic(), 10)));
        let status = until(&history, "the new window is in", |status| status.taken == 1);
        assert_eq!((status.problem.clone(), status.lost.not_written), (None, 0), "at {place:?}: {status:?}");
        let mut windows = 0;
        let found = history.reader().windows(ProfileKind::Cpu, &all(), |window, _| {
            window.unpack().expect("what is handed over is whole");
            windows += 1;
        });
        let found = found.unwrap_or_else(|error| panic!("at {place:?}: {error}"));
        assert!(windows >= 1, "at {place:?} the new window is lost");
        aside += u32::from(status.put_aside.is_some());
        left_out += u32::from(found.damaged > 0);
        if let Some(text) = &status.put_aside {
            assert!(text.contains("history.db.damaged") && state.join("history.db.damaged").exists(), "{text}");
        }
    }
    assert!(aside > 10 && left_out > 10, "put aside {aside} times, left windows out {left_out} times");
}

/// A small disk of its own; needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_costs_what_comes_meanwhile_and_is_told_and_then_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path().join("disk")) else {
        println!("skipped: a small disk cannot be mounted here (needs root)");
        return;
    };
    let filler = disk.0.join("filler");
    let history = History::start(keeping(&disk.0.join("state"))).unwrap();
    let keep = || history.keep(Record::Window(window(tidegate::source::clock::monotonic(), 2_000)));
    keep();
    until(&history, "the first window is in", |status| status.taken == 1);
    // As much as the disk takes.
    let full = std::fs::write(&filler, vec![0; 4 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for _ in 0..20 {
        keep();
    }
    let status = until(&history, "all are accounted for", |status| status.taken + status.lost.not_written == 21);
    let problem = status.problem.unwrap_or_default();
    assert!(status.lost.not_written > 0, "the disk was not full");
    assert!(problem.contains("history.db") && problem.contains("free room"), "{problem}");
    std::fs::remove_file(&filler).unwrap();
    keep();
    let status = until(&history, "it goes on", |status| status.problem.is_none());
    let mut windows = 0;
    let found = history.reader().windows(ProfileKind::Cpu, &all(), |_, _| windows += 1).unwrap();
    assert_eq!((windows, found.damaged), (status.taken, 0));
    assert!(status.put_aside.is_none(), "a full disk is no damage: {status:?}");
    drop(history);
}

/// In a process of its own, because the limit that makes writes fail holds for the whole process.
#[test]
fn a_disk_that_fails_costs_what_comes_meanwhile_and_is_told_and_then_it_goes_on() {
    const ALONE: &str = "TIDEGATE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return with_writes_that_fail();
    }
    let mut alone = Command::new("sh");
    // The signal of that limit would end the process before the database sees an error.
    alone.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap()).env(ALONE, "1");
    let this = "history::a_disk_that_fails_costs_what_comes_meanwhile_and_is_told_and_then_it_goes_on";
    let output = alone.args(["--exact", this, "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn with_writes_that_fail() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let directory = tempfile::tempdir().unwrap();
    let history = History::start(keeping(&directory.path().join("state"))).unwrap();
    let keep = || history.keep(Record::Window(window(tidegate::source::clock::monotonic(), 2_000)));
    keep();
    until(&history, "the first window is in", |status| status.taken == 1);
    let whole = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(4096), ..whole }).unwrap();
    for _ in 0..20 {
        keep();
    }
    let status = until(&history, "all are accounted for", |status| status.taken + status.lost.not_written == 21);
    let problem = status.problem.clone().unwrap_or_default();
    setrlimit(Resource::Fsize, whole).unwrap();
    assert!(status.lost.not_written > 0, "nothing failed: {status:?}");
    assert!(problem.contains("history.db") && problem.contains("see the kernel's log for that disk"), "{problem}");
    keep();
    let status = until(&history, "it goes on", |status| status.problem.is_none());
    let mut windows = 0;
    let found = history.reader().windows(ProfileKind::Cpu, &all(), |_, _| windows += 1).unwrap();
    assert_eq!((windows, found.damaged), (status.taken, 0));
    assert!(status.put_aside.is_none(), "an error of the disk is no damage: {status:?}");
}

#[test]
fn a_thread_that_is_behind_costs_records_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let history = History::start(keeping(&directory.path().join("state"))).unwrap();
    for _ in 0..5_000 {
        history.keep(Record::Window(window(Nanos(0), 1)));
    }
    let status = until(&history, "all are accounted for", |status| {
        status.taken + status.lost.queue_full + status.lost.not_written == 5_000
    });
    assert!(status.lost.queue_full > 0, "{status:?}");
}
