//! Which wait a system call means: the table that the probes look their reasons up in. Calls that wait for whatever their
//! descriptor is are told apart by the file.
//!
//! Numbers are those of Linux `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`.

use agent_common::{WAIT_BY_FILE, WAIT_CALLS_COMPAT, WaitReason};

/// (entry, reason) of every call that has one.
pub(super) fn table() -> Vec<(u32, u32)> {
    let mut table = Vec::new();
    for (calls, meaning) in [(WIDE, 0), (NARROW, WAIT_CALLS_COMPAT)] {
        for (numbers, reason) in calls {
            table.extend(numbers.iter().map(|number| (number + meaning, *reason)));
        }
    }
    table
}

type Calls = &'static [(&'static [u32], u32)];

const IO: u32 = WaitReason::Io as u32;
const LOCK: u32 = WaitReason::Lock as u32;
const SLEEP: u32 = WaitReason::Sleep as u32;
const SOCKET: u32 = WaitReason::Socket as u32;
const POLL: u32 = WaitReason::Poll as u32;
const PIPE: u32 = WaitReason::Pipe as u32;
const CHILD: u32 = WaitReason::Child as u32;
const STOPPED: u32 = WaitReason::Stopped as u32;

/// 64-bit calls.
#[cfg(target_arch = "x86_64")]
const WIDE: Calls = &[
    // read write pread64 pwrite64 readv writev sendfile preadv pwritev splice tee vmsplice preadv2 pwritev2 ioctl
    (&[0, 1, 17, 18, 19, 20, 40, 295, 296, 275, 276, 278, 327, 328, 16], WAIT_BY_FILE),
    // fsync fdatasync sync sync_file_range syncfs msync io_getevents io_submit io_uring_enter io_pgetevents
    // copy_file_range fallocate truncate ftruncate open openat unlink rename
    (&[74, 75, 162, 277, 306, 26, 208, 209, 426, 333, 326, 285, 76, 77, 2, 257, 87, 82], IO),
    // futex futex_waitv futex_wait semop semtimedop flock
    (&[202, 449, 455, 65, 220, 73], LOCK),
    // nanosleep clock_nanosleep
    (&[35, 230], SLEEP),
    // connect accept sendto recvfrom sendmsg recvmsg accept4 recvmmsg sendmmsg
    (&[42, 43, 44, 45, 46, 47, 288, 299, 307], SOCKET),
    // poll select pselect6 ppoll epoll_wait epoll_pwait epoll_pwait2 rt_sigtimedwait
    (&[7, 23, 270, 271, 232, 281, 441, 128], POLL),
    // msgrcv msgsnd mq_timedsend mq_timedreceive
    (&[70, 69, 242, 243], PIPE),
    // wait4 waitid clone fork vfork clone3
    (&[61, 247, 56, 57, 58, 435], CHILD),
    // pause rt_sigsuspend
    (&[34, 130], STOPPED),
];

/// 64-bit calls, by the numbers that newer architectures share.
#[cfg(not(target_arch = "x86_64"))]
const WIDE: Calls = &[
    (&[63, 64, 65, 66, 67, 68, 69, 70, 71, 75, 76, 77, 286, 287, 29], WAIT_BY_FILE),
    (&[82, 83, 81, 84, 267, 227, 4, 2, 426, 292, 285, 47, 45, 46, 56, 35, 38], IO),
    (&[98, 449, 455, 193, 192, 32], LOCK),
    (&[101, 115], SLEEP),
    (&[203, 202, 206, 207, 211, 212, 242, 243, 269], SOCKET),
    (&[72, 73, 22, 441, 137], POLL),
    (&[188, 189, 182, 183], PIPE),
    (&[260, 95, 220, 435], CHILD),
    (&[133], STOPPED),
];

/// 32-bit calls of a 64-bit kernel.
const NARROW: Calls = &[
    (&[3, 4, 180, 181, 145, 146, 187, 239, 333, 334, 313, 315, 316, 54], WAIT_BY_FILE),
    (&[118, 148, 36, 344, 144, 247, 248, 426, 5, 295, 10, 38], IO),
    (&[240, 422, 449, 143, 420], LOCK),
    (&[162, 267, 407], SLEEP),
    (&[102, 362, 364, 369, 370, 371, 372, 337, 345], SOCKET),
    (&[168, 142, 82, 308, 309, 256, 319, 177, 413, 414, 441, 421], POLL),
    (&[7, 114, 284, 120, 2, 190, 435], CHILD),
    (&[29, 72, 179], STOPPED),
];

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::WAIT_CALLS;
    use std::collections::BTreeMap;

    #[test]
    fn every_call_has_one_meaning_and_a_place_in_the_table() {
        let mut seen = BTreeMap::new();
        for (entry, reason) in table() {
            assert!(entry < WAIT_CALLS);
            assert!(reason == WAIT_BY_FILE || WaitReason::ALL.iter().any(|r| *r as u32 == reason));
            assert_eq!(seen.insert(entry, reason), None, "entry {entry} twice");
        }
    }
}
