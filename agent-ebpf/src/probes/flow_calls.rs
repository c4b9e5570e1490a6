//! Which system calls move bytes through which descriptor. Numbers and registers of x86_64 in, a kind out; knows nothing of
//! what is counted.

use aya_ebpf::bindings::pt_regs;

/// What a call does to descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Takes bytes in through its first argument.
    Read,
    /// Puts bytes out through it.
    Write,
    /// Makes what was put out last.
    Sync,
    /// recvmmsg: returns messages, not bytes.
    ReadMessages,
    /// sendmmsg, likewise.
    WriteMessages,
    /// sendfile: out through the first argument, in through the second.
    SendFile,
    /// splice and copy_file_range: in through the first, out through the third.
    Splice,
    /// tee, likewise through the first and second, and vmsplice, which is a write.
    Tee,
    /// close.
    Close,
    /// dup2, dup3: closes its second argument.
    Replace,
}

/// What call `nr` does; `None` for the most, which are none of these.
#[inline(always)]
pub fn call(nr: u64) -> Option<Call> {
    Some(match nr {
        0 | 17 | 19 | 45 | 47 | 295 | 327 => Call::Read,
        1 | 18 | 20 | 44 | 46 | 278 | 296 | 328 => Call::Write,
        74 | 75 | 277 => Call::Sync,
        299 => Call::ReadMessages,
        307 => Call::WriteMessages,
        40 => Call::SendFile,
        275 | 326 => Call::Splice,
        276 => Call::Tee,
        3 => Call::Close,
        33 | 292 => Call::Replace,
        _ => return None,
    })
}

/// The first three arguments of the call whose registers these are.
#[inline(always)]
pub fn arguments(regs: *const pt_regs) -> [u32; 3] {
    // SAFETY: a trusted argument of the tracepoint. The kernel leaves the registers of arguments as they were.
    unsafe { [(*regs).rdi as u32, (*regs).rsi as u32, (*regs).rdx as u32] }
}
