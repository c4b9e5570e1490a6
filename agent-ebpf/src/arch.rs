//! What unwinding takes from the architecture: where the registers of a thread's user side lie, and those of a signal frame.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

/// What unwinding starts from.
pub struct Registers {
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    pub bx: u64,
    pub di: u64,
    /// Whether the code is 64-bit: the stack of 32-bit code has other words.
    pub wide: bool,
    /// Whether the thread is replacing its program: from some moment on its old stack is gone, and the new one has not begun.
    pub replacing: bool,
}

/// Bytes from the return address to the CFA.
pub const RETURN_AT: u64 = 8;
/// In a `ucontext`.
pub const SIGNAL_BP: u64 = 120;
/// In a `ucontext`.
pub const SIGNAL_BX: u64 = 128;
/// In a `ucontext`.
pub const SIGNAL_SP: u64 = 160;
/// In a `ucontext`.
pub const SIGNAL_IP: u64 = 168;
/// Addresses from here on are the kernel's.
pub const USER_END: u64 = 1 << 47;

/// The registers with which the current thread last left its user side.
#[inline(always)]
pub fn user_registers() -> Registers {
    const USER_CS: u64 = 0x33;
    const EXECVE: u64 = 59;
    const EXECVEAT: u64 = 322;
    // SAFETY: takes no pointer and returns a trusted one; that of the registers lies in the thread's kernel stack, and the
    // verifier checks the loads.
    let regs = unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const pt_regs) };
    let call = regs.orig_rax;
    Registers {
        ip: regs.rip,
        sp: regs.rsp,
        bp: regs.rbp,
        bx: regs.rbx,
        di: regs.rdi,
        wide: regs.cs == USER_CS,
        replacing: call == EXECVE || call == EXECVEAT,
    }
}
