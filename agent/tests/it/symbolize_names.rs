//! Names of user frames: what is inlined, stripped, deleted, elsewhere, made at run time, or gone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use tidegate::symbolize::stats::Refusal;
use tidegate::units::Bytes;

use crate::symbolize_kit::{
    CPP, JIT, NOBODY, RUST, Running, build, limits, look_up, make, mapped, names, resolver, stacks,
};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn functions_that_were_inlined_are_named_outermost_first() {
    for (compiler, source, more, expected) in [
        ("g++", CPP, &[][..], ["outer::work(int)", "outer::inner(int)"]),
        ("g++", CPP, &["-gz=zlib"], ["outer::work(int)", "outer::inner(int)"]),
        ("g++", CPP, &["-gz=zlib-gnu"], ["outer::work(int)", "outer::inner(int)"]),
        ("rustc", RUST, &[], ["app::outer::work", "app::outer::inner"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let program = build(folder.path(), compiler, source, more);
        let running = Running::start(&mut Command::new(program));
        assert_eq!(look_up(&mut resolver(limits()), &running), expected, "{compiler} {more:?}");
    }
}

#[test]
fn without_debug_information_the_symbol_table_names_the_function() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-g0"]);
    let running = Running::start(&mut Command::new(program));
    assert_eq!(look_up(&mut resolver(limits()), &running), ["outer::work(int)"]);
}

fn split(folder: &Path) -> (String, String) {
    let program = build(folder, "g++", CPP, &["-static", "-Wl,--build-id=sha1"]);
    let (program, debug) =
        (program.to_str().unwrap().to_owned(), folder.join("app.debug").to_str().unwrap().to_owned());
    make("objcopy", &["--only-keep-debug", &program, &debug]);
    make("strip", &[&program]);
    (program, debug)
}

#[test]
fn a_stripped_file_is_named_by_the_debug_file_that_it_links_to() {
    let folder = tempfile::tempdir().unwrap();
    let (program, debug) = split(folder.path());
    let before = Running::start(&mut Command::new(&program));
    let unnamed = look_up(&mut resolver(limits()), &before);
    assert!(matches!(unnamed.as_slice(), [only] if only.starts_with("app+0x")), "{unnamed:?}");
    drop(before);
    make("objcopy", &[&format!("--add-gnu-debuglink={debug}"), &program]);
    let after = Running::start(&mut Command::new(&program));
    assert_eq!(look_up(&mut resolver(limits()), &after), ["outer::work(int)", "outer::inner(int)"]);
}

#[test]
fn a_debug_file_of_another_build_names_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (program, debug) = split(folder.path());
    let other = tempfile::tempdir().unwrap();
    let another = build(other.path(), "g++", &CPP.replace("work", "play"), &["-static", "-Wl,--build-id=sha1"]);
    make("objcopy", &["--only-keep-debug", another.to_str().unwrap(), &debug]);
    make("objcopy", &[&format!("--add-gnu-debuglink={debug}"), &program]);
    let running = Running::start(&mut Command::new(&program));
    let names = look_up(&mut resolver(limits()), &running);
    assert!(matches!(names.as_slice(), [only] if only.starts_with("app+0x")), "{names:?}");
}

#[test]
fn a_debug_file_is_found_by_build_id_in_the_root_that_the_process_sees() {
    if !is_root() {
        return; // Only root can give a process another root.
    }
    let folder = tempfile::tempdir().unwrap();
    let (program, debug) = split(folder.path());
    let notes = Command::new("readelf").args(["-n", &program]).output().unwrap();
    let notes = String::from_utf8(notes.stdout).unwrap();
    let id = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let place = root.path().join("usr/lib/debug/.build-id").join(&id[..2]);
    fs::create_dir_all(&place).unwrap();
    fs::copy(&debug, place.join(format!("{}.debug", &id[2..]))).unwrap();
    fs::copy(&program, root.path().join("app")).unwrap();
    let running = Running::start(Command::new("chroot").arg(root.path()).arg("/app"));
    assert_eq!(look_up(&mut resolver(limits()), &running), ["outer::work(int)", "outer::inner(int)"]);
}

#[test]
fn a_deleted_file_is_named_by_what_is_still_mapped() {
    if !is_root() {
        return; // Needs CAP_CHECKPOINT_RESTORE.
    }
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &[]);
    let running = Running::start(&mut Command::new(&program));
    fs::remove_file(&program).unwrap();
    fs::write(&program, "something else").unwrap();
    assert_eq!(look_up(&mut resolver(limits()), &running), ["outer::work(int)", "outer::inner(int)"]);
}

#[test]
fn a_process_that_has_ended_is_named_by_what_was_known_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-static"]);
    let running = Running::start(&mut Command::new(&program));
    let (pid, address) = (running.pid(), running.address);
    let mut resolver = resolver(limits());
    // Seen once while it lived: what comes later needs nothing of it.
    resolver.resolve(&stacks(pid, &[address + 4096]));
    drop(running);
    resolver.resolve(&stacks(pid, &[address]));
    assert_eq!(names(&resolver, pid, address), ["outer::work(int)", "outer::inner(int)"]);
    // Never seen, but told of: a static program lies where its file says.
    let segment = 0x0040_0000;
    let told = tidegate::event::Mapping { begin: segment, end: segment + (8 << 20), ..mapped(NOBODY, &program) };
    resolver.learn(&told);
    resolver.resolve(&stacks(told.pid, &[address]));
    assert_eq!(names(&resolver, told.pid, address), ["outer::work(int)", "outer::inner(int)"]);
}

#[test]
fn a_thousand_processes_of_one_program_cost_one_question() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-static"]);
    let address = Running::start(&mut Command::new(&program)).address;
    let mut resolver = resolver(limits());
    for number in 0..1000 {
        let told =
            tidegate::event::Mapping { begin: 0x0040_0000, end: 0x00c0_0000, ..mapped(NOBODY + number, &program) };
        resolver.learn(&told);
        resolver.resolve(&stacks(told.pid, &[address]));
        assert_eq!(names(&resolver, told.pid, address).len(), 2);
    }
    assert_eq!(resolver.stats().asked, 1);
}

#[test]
fn one_symbolizer_reads_more_files_than_it_may_hold_open() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-static"]);
    let address = Running::start(&mut Command::new(&program)).address;
    let mut resolver = resolver(limits()).thrifty(Bytes(8 << 20));
    for number in 0..40 {
        let copy = folder.path().join(format!("app{number}"));
        fs::copy(&program, &copy).unwrap();
        let told = tidegate::event::Mapping { begin: 0x0040_0000, end: 0x00c0_0000, ..mapped(NOBODY + number, &copy) };
        resolver.learn(&told);
        resolver.resolve(&stacks(told.pid, &[address]));
        assert_eq!(names(&resolver, told.pid, address).len(), 2, "file {number}");
    }
    assert_eq!((resolver.stats().asked, resolver.stats().died, resolver.stats().started), (40, 0, 1));
}

#[test]
fn a_file_that_has_cost_enough_is_left_alone_and_its_functions_are_named_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-static"]);
    let running = Running::start(&mut Command::new(&program));
    let mut thrifty = resolver(limits()).thrifty(Bytes(8 << 20));
    assert_eq!(look_up(&mut thrifty, &running).len(), 2);
    // One byte before lies in what was inlined, too.
    let (pid, before) = (running.pid(), running.address - 1);
    thrifty.resolve(&stacks(pid, &[before]));
    assert_eq!((names(&thrifty, pid, before), thrifty.stats().asked), (vec!["outer::work(int)".to_owned()], 1));
    let mut eager = resolver(limits());
    assert_eq!(look_up(&mut eager, &running).len(), 2);
    eager.resolve(&stacks(pid, &[before]));
    assert_eq!((names(&eager, pid, before).len(), eager.stats().asked), (2, 2));
}

#[test]
fn a_file_with_too_much_debug_information_is_named_by_its_symbols_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-static"]);
    let running = Running::start(&mut Command::new(&program));
    let mut thrifty = resolver(limits()).thrifty(Bytes(64));
    assert_eq!(look_up(&mut thrifty, &running), ["outer::work(int)"]);
    assert_eq!(thrifty.files_without_inlined(), 1);
    let mut ample = resolver(limits()).thrifty(Bytes(8 << 20));
    assert_eq!(look_up(&mut ample, &running), ["outer::work(int)", "outer::inner(int)"]);
    assert_eq!(ample.files_without_inlined(), 0);
}

/// Runs the JIT with what `prepare` leaves at the place of its map. What the code is called, and why not better.
fn jit(prepare: impl FnOnce(&Path, u64)) -> (Vec<String>, Vec<Refusal>) {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "gcc", JIT, &[]);
    let running = Running::start(&mut Command::new(program));
    let map = Path::new("/tmp").join(format!("perf-{}.map", running.pid()));
    prepare(&map, running.address);
    let mut resolver = resolver(limits());
    resolver.resolve(&stacks(running.pid(), &[running.address + 0x10]));
    let names = names(&resolver, running.pid(), running.address + 0x10);
    fs::remove_file(&map).ok();
    (names, Refusal::ALL.into_iter().filter(|why| resolver.stats().refused(*why) > 0).collect())
}

#[test]
fn code_made_at_run_time_is_named_by_its_map() {
    let (names, refused) =
        jit(|map, address| fs::write(map, format!("{address:x} 100 LazyCompile:*work a.js:1\n")).unwrap());
    assert_eq!((names, refused), (vec!["LazyCompile:*work a.js:1".to_owned()], vec![]));
    let (names, refused) = jit(|_, _| {});
    assert_eq!((names, refused), (vec!["jit+0x10".to_owned()], vec![]));
}

#[test]
fn a_map_that_is_not_what_it_should_be_is_refused_and_said() {
    let unnamed = vec!["jit+0x10".to_owned()];
    let (names, refused) = jit(|map, address| {
        let elsewhere = map.with_extension("elsewhere");
        fs::write(&elsewhere, format!("{address:x} 100 stolen\n")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, map).unwrap();
    });
    assert_eq!((names, refused), (unnamed.clone(), vec![Refusal::Link]));
    let (names, refused) = jit(|map, _| make("mkfifo", &[map.to_str().unwrap()]));
    assert_eq!((names, refused), (unnamed.clone(), vec![Refusal::NotRegular]));
    let (names, refused) = jit(|map, address| {
        fs::write(map, format!("{address:x} 100 big\n")).unwrap();
        fs::File::options().write(true).open(map).unwrap().set_len(1 << 30).unwrap();
    });
    assert_eq!((names, refused), (unnamed.clone(), vec![Refusal::TooLong]));
    if is_root() {
        let (names, refused) = jit(|map, address| {
            fs::write(map, format!("{address:x} 100 planted\n")).unwrap();
            std::os::unix::fs::chown(map, Some(12_345), None).unwrap();
        });
        assert_eq!((names, refused), (unnamed, vec![Refusal::Foreign]));
    }
}
