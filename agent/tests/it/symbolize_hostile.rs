//! Files that were built to do harm, and the sandbox that they meet.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate::symbolize::Resolver;
use tidegate::symbolize::keeper::Limits;

use crate::profile_kit::Dice;
use crate::symbolize_kit::{CPP, NOBODY, Running, build, limits, look_up, make, mapped, names, resolver, stacks};

/// Looks `file` up all over, and every place must have some name: a function's, or the file's with the place in it.
fn is_survived(resolver: &mut Resolver, number: u32, file: &Path) -> usize {
    let told = mapped(NOBODY + number, file);
    let length = told.end - told.begin;
    let addresses: BTreeSet<u64> = (0..24).map(|n| told.begin + length * n / 24).collect();
    let addresses: Vec<u64> = addresses.into_iter().collect();
    resolver.learn(&told);
    resolver.resolve(&stacks(told.pid, &addresses));
    let module = file.file_name().unwrap().to_str().unwrap();
    let mut by_offset = 0;
    for address in addresses {
        let names = names(resolver, told.pid, address);
        assert!(!names.is_empty() && names.iter().all(|name| !name.contains("unknown")), "{names:?}");
        if names[0].starts_with(module) {
            assert_eq!(names, [format!("{module}+{:#x}", address - told.begin)]);
            by_offset += 1;
        }
    }
    by_offset
}

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
    let mut below = |n: usize| (dice.next() * n as f64) as usize;
    let header = 64.min(bytes.len());
    for _ in 0..=below(8) {
        let length = bytes.len();
        // Half of them in the headers, where they do most harm: at the front, and the section table at the end.
        let at = match below(4) {
            0 => below(header),
            1 => length - 1 - below(length.min(2600)),
            _ => below(length),
        };
        match below(5) {
            0 => bytes[at] = 0xff,
            1 => bytes[at] ^= 1 << below(8),
            2 => {
                // A number as big as it gets, wherever that is.
                let end = (at + 8).min(length);
                bytes[at..end].fill(if below(2) == 0 { 0xff } else { 0x7f });
            }
            3 => {
                let (from, count) = (below(length), 1 + below(64));
                let piece: Vec<u8> = bytes[from..(from + count).min(length)].to_vec();
                let end = (at + piece.len()).min(length);
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            _ => bytes[at] = u8::try_from(below(256)).unwrap(),
        }
    }
    if below(20) == 0 {
        let keep = below(bytes.len()) + 1;
        bytes.truncate(keep);
    }
}

#[test]
fn a_thousand_broken_files_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(build(folder.path(), "g++", CPP, &[])).unwrap();
    let packed = fs::read(build(folder.path(), "g++", CPP, &["-gz=zlib"])).unwrap();
    let mut resolver = resolver(limits());
    let mut dice = Dice::new(3);
    let mut by_offset = 0;
    for number in 0..1000 {
        let mut bytes = if number % 3 == 0 { packed.clone() } else { whole.clone() };
        mutate(&mut bytes, &mut dice);
        let file = folder.path().join(format!("mutant{number}"));
        fs::write(&file, bytes).unwrap();
        by_offset += is_survived(&mut resolver, number, &file);
        fs::remove_file(&file).unwrap();
    }
    let stats = resolver.stats();
    println!(
        "1000 files: {} unreadable, {} killed the symbolizer, {} started; {by_offset} places by offset",
        stats.unreadable, stats.died, stats.started
    );
    assert!(stats.unreadable > 20 && by_offset > 1000, "the mutations do no harm: {stats:?}");
    // And the next whole file is read as if nothing had been.
    let program = build(folder.path(), "g++", CPP, &[]);
    let running = Running::start(&mut Command::new(program));
    assert_eq!(look_up(&mut resolver, &running), ["outer::work(int)", "outer::inner(int)"]);
}

/// Functions inlined into each other, so deep that whoever follows them by calling himself runs out of stack.
const DEEP: &str = r#"
    .text
    .globl f
    .type f, @function
f:  nop
    ret
    .size f, .-f
    .section .debug_abbrev, "", @progbits
    .byte 1, 0x11, 1, 0x11, 0x01, 0x12, 0x07, 0, 0
    .byte 2, 0x2e, 1, 0x11, 0x01, 0x12, 0x07, 0x03, 0x08, 0, 0
    .byte 3, 0x1d, 1, 0x11, 0x01, 0x12, 0x07, 0x31, 0x13, 0, 0
    .byte 0
    .section .debug_info, "", @progbits
unit:
    .long last - first
first:
    .short 4
    .long 0
    .byte 8
    .byte 1
    .quad f, 2
function:
    .byte 2
    .quad f, 2
    .asciz "f"
    .rept 400000
    .byte 3
    .quad f, 2
    .long function - unit
    .endr
    .fill 400002, 1, 0
last:
"#;

#[test]
fn a_file_that_kills_the_symbolizer_costs_its_own_names_only() {
    let folder = tempfile::tempdir().unwrap();
    let (code, deep) = (folder.path().join("deep.s"), folder.path().join("deep.so"));
    fs::write(&code, DEEP).unwrap();
    make("gcc", &["-shared", "-nostdlib", "-o", deep.to_str().unwrap(), code.to_str().unwrap()]);
    let mut resolver = resolver(limits());
    // Where its only function is, and so where its debug information is followed.
    let listed = Command::new("nm").arg("-D").arg(&deep).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let at = listed.lines().find(|line| line.ends_with(" T f")).unwrap();
    let at = u64::from_str_radix(at.split(' ').next().unwrap(), 16).unwrap();
    let told = mapped(NOBODY, &deep);
    resolver.learn(&told);
    for _again in 0..3 {
        resolver.resolve(&stacks(told.pid, &[told.begin + at]));
        assert_eq!(names(&resolver, told.pid, told.begin + at), [format!("deep.so+{at:#x}")]);
    }
    assert_eq!(resolver.stats().died, 1, "once, and then the file is left alone: {:?}", resolver.stats());
    let program = build(folder.path(), "g++", CPP, &[]);
    let running = Running::start(&mut Command::new(program));
    assert_eq!(look_up(&mut resolver, &running).len(), 2, "another one has taken its place");
    assert_eq!(resolver.stats().started, 2);
}

#[test]
fn debug_information_that_unpacks_to_more_than_there_is_memory_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-gz=zlib"]);
    let mut bytes = fs::read(&program).unwrap();
    for (claimed, packed) in [(u64::MAX, None), (1 << 40, None), (150 << 20, Some(150_usize << 20))] {
        claim(&mut bytes, ".debug_info", claimed, packed);
        let bomb = folder.path().join("bomb");
        fs::write(&bomb, &bytes).unwrap();
        let mut resolver = resolver(limits());
        is_survived(&mut resolver, 0, &bomb);
        let running = Running::start(&mut Command::new(&program));
        assert_eq!(look_up(&mut resolver, &running).len(), 2);
        fs::remove_file(&bomb).unwrap();
    }
}

/// Makes a compressed section say that it is `claimed` long, and, if asked, be as many zeros.
fn claim(bytes: &mut Vec<u8>, section: &str, claimed: u64, zeros: Option<usize>) {
    use object::{Object as _, ObjectSection as _};
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let found = file.section_by_name(section).unwrap();
    let (offset, index) = (usize::try_from(found.file_range().unwrap().0).unwrap(), found.index().0);
    bytes[offset + 8..offset + 16].copy_from_slice(&claimed.to_le_bytes());
    let Some(zeros) = zeros else { return };
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let chunk = vec![0; 1 << 20];
    for _ in 0..zeros >> 20 {
        packer.write_all(&chunk).unwrap();
    }
    let zipped = packer.finish().unwrap();
    let at = bytes.len().next_multiple_of(16);
    let header = bytes[offset..offset + 24].to_vec();
    bytes.resize(at, 0);
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&zipped);
    let table = usize::try_from(u64::from_le_bytes(bytes[40..48].try_into().unwrap())).unwrap();
    let entry = table + 64 * index;
    bytes[entry + 24..entry + 32].copy_from_slice(&(at as u64).to_le_bytes());
    bytes[entry + 32..entry + 40].copy_from_slice(&((24 + zipped.len()) as u64).to_le_bytes());
}

#[test]
fn a_symbolizer_that_does_not_answer_is_replaced_and_none_dies_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &["-static"]);
    let mut resolver = resolver(Limits { wall: Duration::from_millis(300), deaths_a_minute: 1, ..limits() });
    let running = Running::start(&mut Command::new(&program));
    resolver.warm_up();
    let stopped = resolver.symbolizer().unwrap();
    make("kill", &["-STOP", &stopped.to_string()]);
    let names = look_up(&mut resolver, &running);
    assert!(matches!(names.as_slice(), [only] if only.starts_with("app+0x")), "{names:?}");
    assert_eq!(resolver.stats().died, 1);
    assert!(!Path::new(&format!("/proc/{stopped}")).exists(), "and it is gone");
    // The limit of one in a minute is reached: the next file waits for its names, and says where it is meanwhile.
    let other = folder.path().join("other");
    fs::copy(&program, &other).unwrap();
    let running = Running::start(&mut Command::new(&other));
    let names = look_up(&mut resolver, &running);
    assert!(matches!(names.as_slice(), [only] if only.starts_with("other+0x")), "{names:?}");
    assert_eq!((resolver.stats().started, resolver.symbolizer()), (1, None));
}

#[test]
fn a_program_that_is_no_symbolizer_is_said_and_names_stay_offsets() {
    let keeper = tidegate::symbolize::keeper::Keeper::new(Some("/bin/true".into()), limits());
    let mut resolver = Resolver::with(keeper);
    let folder = tempfile::tempdir().unwrap();
    let program = build(folder.path(), "g++", CPP, &[]);
    let running = Running::start(&mut Command::new(program));
    assert!(look_up(&mut resolver, &running)[0].starts_with("app+0x"));
    let told = resolver.stats().degraded().unwrap();
    assert!(told.contains("/bin/true"), "{told}");
}

#[test]
fn a_running_symbolizer_has_given_everything_up() {
    let mut resolver = resolver(limits());
    resolver.warm_up();
    let pid = resolver.symbolizer().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(capabilities), 16), Ok(0), "{capabilities}");
    }
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("Threads:")), ("2".into(), "1".into(), "1".into()));
    if rustix::process::geteuid().is_root() {
        assert_eq!(u64::from_str_radix(&field("CapBnd:"), 16), Ok(0));
        assert_eq!(field("Uid:").split_whitespace().next(), Some("65534"));
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max file size             0 ")), "{limits}");
}

/// Exit signal and words of a confined process that tries `what`.
fn attempt(what: &str, filter: &[&str]) -> (Option<i32>, Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["symbolizer", "--attempt", what]).args(filter);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    let status = child.wait().unwrap();
    (status.signal(), status.code(), words)
}

#[test]
fn whatever_a_symbolizer_has_no_need_of_ends_it() {
    const SIGSYS: i32 = 31;
    // The sandbox alone ends nothing.
    assert_eq!(attempt("wait", &[]), (None, Some(0), String::new()));
    for what in ["open", "connect", "spawn", "thread", "write"] {
        assert_eq!(attempt(what, &[]), (Some(SIGSYS), None, String::new()), "{what}");
    }
    let (signal, code, words) = attempt("memory", &[]);
    assert_eq!((signal, code), (None, Some(1)), "{words}");
    assert!(words.contains("out of memory"), "{words}");
}

#[test]
fn landlock_alone_refuses_files_and_connections() {
    let mut resolver = resolver(limits());
    resolver.warm_up();
    let confinement = resolver.stats().confinement.clone().unwrap();
    // Sockets since its version 4; without it `doctor` says so.
    for (what, since) in [("open", 1), ("spawn", 1), ("connect", 4)] {
        if confinement.landlock.is_some_and(|version| version >= since) {
            let (_, code, words) = attempt(what, &["--without-filter"]);
            assert_eq!(code, Some(1), "{what}: {words}");
            assert!(words.contains("Permission denied"), "{what}: {words}");
        }
    }
}
