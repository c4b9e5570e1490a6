//! The settings page between processes: refused when it is not one, whole when its writer is killed.

#![expect(clippy::unwrap_used, reason = "a helper of a test reports what it could not do by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tidegate_client::abi::{PAGE_BYTES, SETTINGS_ABI_AT, SETTINGS_N_AT, SETTINGS_VALUES};
use tidegate_client::page::{PageError, PageReader, PageWriter, Snapshot};

const KILLS: u32 = 2_000;
const CHILD_PAGE: &str = "TIDEGATE_TEST_CHILD_PAGE";
const CHILD_TEST: &str = "a_writer_publishes_until_it_is_killed";

fn page_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("ingest.page")
}

#[test]
fn what_was_published_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    let mut writer = PageWriter::open(&path, &[262_144, 250_000]).unwrap();
    let reader = PageReader::open(&path).unwrap();
    let fresh = reader.read().unwrap();
    assert_eq!((fresh.generation, fresh.expires_boottime_ns), (0, 0));
    assert_eq!(fresh.values[..3], [262_144, 250_000, 0]);

    writer.publish(7, &[4096, 1000], 99).unwrap();
    let read = reader.read().unwrap();
    assert_eq!((read.generation, read.expires_boottime_ns, &read.values[..2]), (7, 99, &[4096, 1000][..]));

    writer.renew(200);
    let renewed = reader.read().unwrap();
    assert_eq!(renewed, Snapshot { expires_boottime_ns: 200, ..read });
}

#[test]
fn a_writer_resumes_the_page_of_its_predecessor_with_the_same_inode() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    let mut writer = PageWriter::open(&path, &[1, 2]).unwrap();
    writer.publish(41, &[10, 20], 5).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    drop(writer);

    let mut writer = PageWriter::open(&path, &[1, 2]).unwrap();
    assert_eq!(writer.snapshot().generation, 41);
    assert_eq!(writer.snapshot().values[..2], [10, 20]);
    writer.publish(42, &[11, 21], 6).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(PageReader::open(&path).unwrap().read().unwrap().generation, 42);
}

#[test]
fn two_writers_never_share_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    let _first = PageWriter::open(&path, &[1, 2]).unwrap();
    assert!(matches!(PageWriter::open(&path, &[1, 2]), Err(PageError::InUse { .. })));
}

#[test]
fn a_reader_cannot_keep_the_next_writer_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    let first = PageWriter::open(&path, &[1, 2]).unwrap();
    let locks: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).filter(|p| *p != path).collect();
    assert_eq!(locks.len(), 1, "{locks:?}");
    assert_eq!(fs::metadata(&locks[0]).unwrap().permissions().mode() & 0o777, 0o600, "others could take the lock");
    drop(first);

    // What whoever may read the page can do to it.
    let held = fs::File::open(&path).unwrap();
    held.lock().unwrap();
    let _second = PageWriter::open(&path, &[1, 2]).unwrap();
    assert!(matches!(PageWriter::open(&path, &[1, 2]), Err(PageError::InUse { .. })));
}

#[test]
fn a_page_is_readable_by_all_and_its_creation_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    // What a writer killed in the middle of creation leaves.
    fs::write(dir.path().join(".ingest.page.new"), [0; 100]).unwrap();
    drop(PageWriter::open(&path, &[1, 2]).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A good page with `bytes` put at `at`.
fn spoilt(dir: &tempfile::TempDir, at: usize, bytes: &[u8]) -> PathBuf {
    let path = page_in(dir);
    drop(PageWriter::open(&path, &[1, 2]).unwrap());
    let mut page = fs::read(&path).unwrap();
    page[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(&path, page).unwrap();
    path
}

/// Both ends refuse `path` with an error that names it and says `word`.
fn check_refused(path: &Path, word: &str) {
    for error in [PageReader::open(path).map(drop).unwrap_err(), PageWriter::open(path, &[1, 2]).map(drop).unwrap_err()]
    {
        let text = error.to_string();
        assert!(text.contains(word) && text.contains(&path.display().to_string()), "{text}");
    }
}

#[test]
fn a_page_that_is_not_one_is_refused_by_name() {
    let dir = || tempfile::tempdir().unwrap();

    let d = dir();
    check_refused(&spoilt(&d, 0, b"nonsense"), "no settings page");
    let d = dir();
    check_refused(&spoilt(&d, SETTINGS_ABI_AT, &2_u32.to_ne_bytes()), "version 2");
    let d = dir();
    check_refused(&spoilt(&d, SETTINGS_N_AT, &9_u32.to_ne_bytes()), "9 values");
    let d = dir();
    check_refused(&spoilt(&d, SETTINGS_N_AT, &0_u32.to_ne_bytes()), "0 values");

    let d = dir();
    let short = page_in(&d);
    fs::write(&short, vec![0; PAGE_BYTES - 1]).unwrap();
    check_refused(&short, "4095 bytes");

    let d = dir();
    let target = spoilt(&d, 0, &[]);
    let link = d.path().join("link");
    symlink(target, &link).unwrap();
    check_refused(&link, "must not be a link");

    let d = dir();
    check_refused(d.path(), "page");
}

#[test]
fn a_page_with_another_number_of_values_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    drop(PageWriter::open(&path, &[1, 2, 3]).unwrap());
    assert!(matches!(PageWriter::open(&path, &[1, 2]), Err(PageError::OtherValues { found: 3, wanted: 2, .. })));
    assert_eq!(PageReader::open(&path).unwrap().read().unwrap().values[..4], [1, 2, 3, 0]);
}

/// Values that no two publications share a mixture of: every word is made from the generation.
fn values_of(generation: u64) -> [u64; SETTINGS_VALUES] {
    std::array::from_fn(|i| (generation + i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn is_whole(s: &Snapshot) -> bool {
    s.values == values_of(s.generation) && s.expires_boottime_ns == s.generation.wrapping_mul(3)
}

/// Publishes as fast as it can, when it is started as a child of the test below; in a plain test run it has no page and
/// is done at once.
#[test]
fn a_writer_publishes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_PAGE) else { return };
    let mut writer = PageWriter::open(Path::new(&path), &values_of(0)).unwrap();
    let mut generation = writer.snapshot().generation;
    let mut publish = || {
        generation += 1;
        writer.publish(generation, &values_of(generation), generation.wrapping_mul(3)).unwrap();
    };
    publish();
    std::io::stderr().write_all(b"!").unwrap();
    loop {
        publish();
    }
}

fn start_writer(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD_TEST, "--test-threads=1", "--nocapture"])
        .env(CHILD_PAGE, path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Ends the reader also when an assertion fails, so that a failure is no hang.
struct Ends<'a>(&'a AtomicBool);
impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_writer_killed_two_thousand_times_leaves_no_torn_and_no_stuck_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = page_in(&dir);
    drop(PageWriter::open(&path, &values_of(0)).unwrap());
    let reader = PageReader::open(&path).unwrap();
    let done = AtomicBool::new(false);

    let (reads, torn, stuck) = std::thread::scope(|scope| {
        let ends = Ends(&done);
        let watch = scope.spawn(|| {
            let (mut reads, mut torn, mut stuck) = (0_u64, 0_u64, 0_u64);
            while !done.load(Ordering::Relaxed) {
                match reader.read() {
                    Some(s) => torn += u64::from(!is_whole(&s)),
                    None => stuck += 1,
                }
                reads += 1;
            }
            (reads, torn, stuck)
        });
        let mut last = 0;
        for round in 0..KILLS {
            let mut child = start_writer(&path);
            // The first byte says that publications are under way; then a varied number of them go by.
            child.stderr.take().unwrap().read_exact(&mut [0]).unwrap();
            for _ in 0..(u64::from(round).wrapping_mul(0x9E37_79B9) % 4096) {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let left = reader.read().expect("nobody writes now, so one copy is enough");
            assert!(is_whole(&left), "round {round} left {left:?}");
            assert!(left.generation > last, "round {round}: generation {} after {last}", left.generation);
            last = left.generation;
        }
        drop(ends);
        watch.join().unwrap()
    });
    assert_eq!((torn, stuck), (0, 0), "of {reads} reads");
    assert!(reads > u64::from(KILLS));
}
