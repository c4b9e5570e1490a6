//! Which tracepoints this kernel offers: its type information in, one check a probe family out. Attaches nothing.
//!
//! A tracepoint `NAME` has a type `btf_trace_NAME`; looking for that name in the raw bytes needs no parser and misses
//! nothing, because the kernel keeps every name once, ended by a zero.

use std::fs;
use std::path::Path;

use crate::doctor::{missing, ok};
use crate::serve::check::Check;

/// Check, tracepoints it needs, what is lost without them, and what to do.
const FAMILIES: [(&str, &[&str], &str); 2] = [
    (
        "tracepoints-syscalls",
        &["sys_enter", "sys_exit"],
        "boot a kernel with CONFIG_FTRACE_SYSCALLS; until then system calls are not counted",
    ),
    (
        "tracepoints-sockets",
        &["sk_data_ready", "sock_recv_length"],
        "boot Linux 6.3 or newer; until then time in socket queues is not measured",
    ),
];

pub(super) fn checks(sys: &Path) -> Vec<Check> {
    let types = fs::read(sys.join("kernel/btf/vmlinux"));
    let check = |(name, wanted, remedy): (&'static str, &[&str], &str)| match &types {
        Err(_no_btf) => missing(name, "cannot be told without BTF", "see the check `btf`"),
        Ok(types) => {
            let lacking: Vec<_> = wanted.iter().filter(|t| !offers(types, t)).copied().collect();
            if lacking.is_empty() {
                ok(name, wanted.join(", "))
            } else {
                missing(name, format!("this kernel has no {}", lacking.join(", ")), remedy)
            }
        }
    };
    FAMILIES.map(check).into()
}

fn offers(types: &[u8], tracepoint: &str) -> bool {
    let name = format!("btf_trace_{tracepoint}\0");
    let name = name.as_bytes();
    // The first byte is rare enough to make this fast, and a scan happens once per call of the doctor.
    types.windows(name.len()).any(|window| window == name)
}
