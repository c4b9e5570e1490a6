//! What the agent and its symbolizer say to each other: one packet a question, with descriptors; packets of answers, the
//! last of which says so. Neither side trusts the other's bytes: what does not parse is an error, never a panic.
//!
//! The socket keeps packets apart. Bytes that are no JSON (unwind rows, say) travel as packets of their own.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest packet.
pub const LONGEST_PACKET: usize = 128 << 10;

/// Answers are collected up to this many bytes before they are sent.
pub const FULL_PACKET: usize = 24 << 10;

/// Most places of one question.
pub const MOST_PLACES: usize = 512;

/// Most functions at one place: more are cut.
pub const MOST_INLINED: usize = 64;

/// Most descriptors of one packet.
const MOST_DESCRIPTORS: usize = 4;

/// What a file is known by: it changes when the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub inode: u64,
    /// Size, bytes.
    pub size: u64,
    /// Last modified, ns since 1970.
    pub modified_ns: i64,
}

/// A file that goes with another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Companion {
    /// Nobody has looked for it yet.
    #[default]
    Unasked,
    /// There is none.
    Absent,
    /// Its descriptor is in the packet.
    Passed,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Names of places in an ELF file. Descriptors: the file, then its debug file, then the one that several debug files
    /// share, each if `Passed`.
    Elf {
        /// The file.
        key: FileKey,
        /// Its separate debug file.
        debug: Companion,
        /// The supplementary file that its debug information refers to.
        shared: Companion,
        /// Debug information beyond so many bytes is done without: functions are named then, what was inlined into
        /// them is not.
        most_debug: u64,
        /// Places, as offsets in the file.
        offsets: Vec<u64>,
    },
    /// Names of places in code made at run time. Descriptor: the perf map.
    PerfMap {
        /// The map.
        key: FileKey,
        /// Places, as addresses in the process.
        addresses: Vec<u64>,
    },
}

/// A file that the symbolizer would like to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Build id that it has, hexadecimal.
    pub build_id: Option<String>,
    /// Name that the file refers to it by.
    pub name: Option<String>,
}

/// Functions that a range of places lies in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// First place.
    pub begin: u64,
    /// First place behind it.
    pub end: u64,
    /// Names, outermost first; none when there is no name.
    pub names: Vec<String>,
    /// The whole of the outermost function, where that is more: first place, and first place behind it.
    pub function: Option<(u64, u64)>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The first packet: how the symbolizer is confined.
    Ready(Confinement),
    /// Some of what was asked for; more follows.
    Part(Vec<Found>),
    /// The last of what was asked for, and why something was left out, if so.
    Done(Vec<Found>, Option<String>),
    /// Ask again with the separate debug file, or say that there is none.
    WantsDebug(Wish),
    /// Ask again with the shared debug file, or say that there is none.
    WantsShared(Wish),
    /// The file cannot be read.
    Failed(String),
}

/// How a symbolizer is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Version of Landlock that keeps it from every file and socket; `None` where the kernel has none.
    pub landlock: Option<u32>,
    /// Highest number of a capability that it could not give up, if there is one.
    pub kept_capability: Option<u32>,
    /// It runs as this user.
    pub uid: u32,
}

/// Sends a message with descriptors.
pub fn send(socket: impl AsFd, message: &impl Serialize, with: &[BorrowedFd<'_>]) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    if json.len() > LONGEST_PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a packet of {} bytes", json.len())));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} descriptors in a packet", with.len())));
    }
    sendmsg(socket, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message and its descriptors; `None` when the other side has gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let passed = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(passed) => Some(passed),
        _ => None,
    });
    let passed: Vec<OwnedFd> = passed.flatten().collect();
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is too long"));
    }
    let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok(Some((message, passed)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_question_arrives_with_its_descriptors_and_a_lie_is_an_error() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        let key = FileKey { dev: 1, inode: 2, size: 3, modified_ns: -4 };
        let ask = Ask::PerfMap { key, addresses: vec![u64::MAX] };
        send(&a, &ask, &[file.as_fd()]).unwrap();
        let (got, passed) = receive::<Ask>(&b).unwrap().unwrap();
        assert_eq!((got, passed.len()), (ask, 1));
        rustix::io::write(&a, b"{\"Elf\":").unwrap();
        assert!(receive::<Ask>(&b).is_err());
        drop(a);
        assert!(receive::<Ask>(&b).unwrap().is_none());
    }
}
