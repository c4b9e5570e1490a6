//! The one table of system calls whose result is a byte count, by number; the names are those of the host's architecture.

use agent_common::COMPAT_BIT;
use syscalls::Sysno;

const BYTE_COUNTS: &[Sysno] = &[
    Sysno::read,
    Sysno::write,
    Sysno::pread64,
    Sysno::pwrite64,
    Sysno::readv,
    Sysno::writev,
    Sysno::preadv,
    Sysno::pwritev,
    Sysno::preadv2,
    Sysno::pwritev2,
    Sysno::sendto,
    Sysno::recvfrom,
    Sysno::sendmsg,
    Sysno::recvmsg,
    Sysno::sendfile,
    Sysno::splice,
    Sysno::tee,
    Sysno::vmsplice,
    Sysno::copy_file_range,
    Sysno::getrandom,
    #[cfg(target_arch = "x86_64")]
    Sysno::getdents,
    Sysno::getdents64,
    #[cfg(target_arch = "x86_64")]
    Sysno::readlink,
    Sysno::readlinkat,
    Sysno::process_vm_readv,
    Sysno::process_vm_writev,
];

/// Whether a positive result of this call is a number of bytes. Never of a 32-bit program's call: its numbers are others.
pub fn moves_bytes(nr: u32) -> bool {
    nr & COMPAT_BIT == 0 && Sysno::new(nr as usize).is_some_and(|call| BYTE_COUNTS.contains(&call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_count_bytes_are_taken_for_it() {
        let number = |call: Sysno| u32::try_from(call.id()).unwrap();
        assert!(moves_bytes(number(Sysno::read)) && moves_bytes(number(Sysno::process_vm_writev)));
        for other in [number(Sysno::getppid), number(Sysno::mmap), number(Sysno::read) | COMPAT_BIT, 100_000, u32::MAX]
        {
            assert!(!moves_bytes(other), "{other}");
        }
    }
}
