//! The stack of a thread that stands still: its registers and its memory in, return addresses out, innermost first. It
//! follows frame pointers; it never writes and never stops the thread.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use agent_common::MAX_FRAMES;

use crate::units::Pid;

/// The frames above `ip`, as far as frame pointers lead. A chain must rise, or it has ended.
pub fn callers(pid: Pid, ip: u64, bp: u64) -> Vec<u64> {
    let mut frames = vec![ip];
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return frames };
    let mut at = bp;
    while frames.len() < MAX_FRAMES && at != 0 && at.is_multiple_of(8) {
        let mut pair = [0_u8; 16];
        if memory.read_exact_at(&mut pair, at).is_err() {
            break;
        }
        let (words, _) = pair.as_chunks::<8>();
        let (next, back) = (u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1]));
        if back == 0 {
            break;
        }
        frames.push(back);
        if next <= at {
            break;
        }
        at = next;
    }
    frames
}
