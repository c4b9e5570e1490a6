//! Programs with known functions, built from source, and what a resolver makes of their addresses.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_common::{SampleKind, UnwindEnd, WaitReason};
use tidegate::aggregate::stacks::{StackCounts, StackKey, Tally};
use tidegate::event::{Comm, Mapping};
use tidegate::symbolize::keeper::{Keeper, Limits};
use tidegate::symbolize::{Resolver, Space};
use tidegate::units::{CgroupId, Nanos, Pid, Uid};

/// Prints where it is, in a function that was inlined into `outer::work`, then waits for its end.
pub(crate) const CPP: &str = r#"
#include <cstdio>
namespace outer {
inline __attribute__((always_inline)) void *inner(int) {
    void *here;
    asm volatile("lea 0(%%rip), %0\n\tnop" : "=r"(here));
    return here;
}
__attribute__((noinline)) void *work(int x) { return inner(x + 1); }
}
int main() {
    std::printf("%p\n", outer::work(1));
    std::fflush(stdout);
    std::getchar();
}
"#;

/// The same in Rust.
pub(crate) const RUST: &str = r#"
mod outer {
    #[inline(always)]
    pub fn inner(x: u64) -> u64 {
        let here: u64;
        unsafe { std::arch::asm!("lea {}, [rip]", "nop", out(reg) here) };
        std::hint::black_box(x);
        here
    }
    #[inline(never)]
    pub fn work(x: u64) -> u64 { inner(x + 1) }
}
fn main() {
    println!("{:#x}", outer::work(std::env::args().count() as u64));
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
"#;

/// Prints where a page of code made at run time lies.
pub(crate) const JIT: &str = r#"
#include <stdio.h>
#include <sys/mman.h>
int main(void) {
    void *code = mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("%p\n", code);
    fflush(stdout);
    getchar();
    return 0;
}
"#;

/// Runs a compiler, or whatever else makes a program.
pub(crate) fn make(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Builds `source` in `folder`.
pub(crate) fn build(folder: &Path, compiler: &str, source: &str, extra: &[&str]) -> PathBuf {
    let extension = if compiler == "rustc" { "rs" } else { "cc" };
    let language: &[&str] = match compiler {
        "rustc" => &["--edition=2024", "-Copt-level=2", "-g"],
        "gcc" => &["-O2", "-g", "-x", "c"],
        _ => &["-O2", "-g", "-x", "c++"],
    };
    let (code, program) = (folder.join(format!("app.{extension}")), folder.join("app"));
    fs::write(&code, source).unwrap();
    let (code, out) = (code.to_str().unwrap(), program.to_str().unwrap());
    let mut arguments = vec!["-o", out];
    arguments.extend(language);
    arguments.push(code);
    arguments.extend(extra);
    make(compiler, &arguments);
    program
}

/// A program that runs until it is dropped, and the address that it printed.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: u64,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = u64::from_str_radix(line.trim().trim_start_matches("0x"), 16).unwrap();
        Self { child, address }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn limits() -> Limits {
    // A busy machine is slow, and most of these tests are not about being slow.
    Limits { wall: Duration::from_mins(2), deaths_a_minute: 2000, ..Limits::default() }
}

pub(crate) fn resolver(limits: Limits) -> Resolver {
    Resolver::with(Keeper::new(Some(env!("CARGO_BIN_EXE_tidegate").into()), limits))
}

/// Each address a stack of its own.
pub(crate) fn stacks(pid: Pid, addresses: &[u64]) -> StackCounts {
    let mut counts = StackCounts::starting(Nanos(0));
    for address in addresses {
        let key = StackKey {
            kind: SampleKind::Cpu,
            pid,
            comm: Comm(*b"app\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            cgroup: CgroupId(0),
            uid: Uid(0),
            reason: WaitReason::Other,
            user_end: UnwindEnd::Entry,
            kernel: Box::new([]),
            user: Box::new([*address]),
            thread: None,
            waker: None,
        };
        counts.counts.insert(key, Tally { samples: 1, weight: 1 });
    }
    counts
}

/// Names of one address, outermost first.
pub(crate) fn names(resolver: &Resolver, pid: Pid, address: u64) -> Vec<String> {
    let names = resolver.names().get(Space::User(pid), address).expect("it was looked up");
    names.iter().map(ToString::to_string).collect()
}

/// What one running program's address is called.
pub(crate) fn look_up(resolver: &mut Resolver, running: &Running) -> Vec<String> {
    resolver.resolve(&stacks(running.pid(), &[running.address]));
    names(resolver, running.pid(), running.address)
}

/// Number of a process that cannot be.
pub(crate) const NOBODY: u32 = 0x4000_0000;

/// What a source would tell of `file`, mapped whole at 4 MiB into process number `pid`, which has ended.
pub(crate) fn mapped(pid: u32, file: &Path) -> Mapping {
    let meta = fs::metadata(file).unwrap();
    let path = file.to_str().unwrap().as_bytes();
    let begin = 4 << 20;
    let end = begin + meta.len().max(1);
    let (dev, inode) = (meta.dev(), meta.ino());
    Mapping { pid: Pid(pid), begin, end, offset: 0, dev, inode, build_id: [].into(), path: path.into() }
}
