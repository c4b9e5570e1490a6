//! The decoder: walks a batch and yields events; what it cannot read it skips and counts.

use agent_common::{
    FlowRow, LedgerRow, LossReason, LossRow, MAX_FRAMES, MappingRow, ProcessRow, RECORD_ALIGN, RecordHeader,
    RecordKind, ReportHeader, SampleKind, SocketRow, StackSample, SyscallRow, TaskRow, ThreadRow, UnwindEnd, UsageRow,
    WaitReason, Wire,
};

use crate::event::{Body, Comm, Event, Mapping, Process, Sample};
use crate::units::{CgroupId, CpuId, Nanos, Pid, PipelineName, Tid, Uid};

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The length is shorter than a header or longer than what is there; the rest of the batch is lost.
    #[error("record at byte {at}: length {len} does not fit the {left} bytes left")]
    Length {
        /// Offset of the record.
        at: usize,
        /// Its stated length.
        len: usize,
        /// Bytes left.
        left: usize,
    },
    /// A kind that this version does not know.
    #[error("record at byte {at}: unknown kind {kind}")]
    UnknownKind {
        /// Offset of the record.
        at: usize,
        /// The kind.
        kind: u16,
    },
    /// The body is not what its kind asks for.
    #[error("record at byte {at}: bad {what}")]
    Body {
        /// Offset of the record.
        at: usize,
        /// Which part.
        what: &'static str,
    },
}

/// What the decoder yields.
pub type Decoded<'a> = Result<Event<'a>, DecodeError>;

/// Walks the records of a batch.
#[derive(Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Decoder<'a> {
    /// Over the records in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Decoder<'a> {
    type Item = Decoded<'a>;

    fn next(&mut self) -> Option<Decoded<'a>> {
        let at = self.at;
        let left = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let Some((header, _)) = RecordHeader::from_prefix(left) else {
            self.at = self.bytes.len();
            return Some(Err(DecodeError::Length { at, len: 0, left: left.len() }));
        };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let Some(body) = left.get(size_of::<RecordHeader>()..len) else {
            self.at = self.bytes.len();
            return Some(Err(DecodeError::Length { at, len, left: left.len() }));
        };
        self.at = at.saturating_add(len.next_multiple_of(RECORD_ALIGN));
        let event = |body| Event { time: Nanos(header.time_ns), cpu: CpuId(u32::from(header.cpu)), body };
        Some(match kind(header.kind) {
            None => Err(DecodeError::UnknownKind { at, kind: header.kind }),
            Some(kind) => decode_body(kind, body).map(event).map_err(|what| DecodeError::Body { at, what }),
        })
    }
}

fn kind(number: u16) -> Option<RecordKind> {
    RecordKind::ALL.into_iter().find(|k| *k as u16 == number)
}

fn loss_reason(number: u32) -> Option<LossReason> {
    LossReason::ALL.into_iter().find(|r| *r as u32 == number)
}

fn decode_body(kind: RecordKind, body: &[u8]) -> Result<Body<'_>, &'static str> {
    Ok(match kind {
        RecordKind::Stack => Body::Stack(Box::new(sample(body)?)),
        RecordKind::Thread => Body::Thread(Box::new(exact::<ThreadRow>(body, "thread row")?)),
        RecordKind::Syscall => Body::Syscall(Box::new(exact::<SyscallRow>(body, "system call row")?)),
        RecordKind::Socket => Body::Socket(Box::new(exact::<SocketRow>(body, "socket row")?)),
        RecordKind::Flow => Body::Flow(Box::new(exact::<FlowRow>(body, "flow row")?)),
        RecordKind::Loss => {
            let row = exact::<LossRow>(body, "loss row")?;
            Body::Loss(loss_reason(row.reason).ok_or("loss reason")?, row.count)
        }
        RecordKind::Ledger => Body::Ledger(exact::<LedgerRow>(body, "ledger")?),
        RecordKind::Tick => Body::Tick,
        RecordKind::Task => Body::Task(exact::<TaskRow>(body, "task row")?),
        RecordKind::Usage => Body::Usage(Box::new(exact::<UsageRow>(body, "usage row")?)),
        RecordKind::Input => Body::Input(serde_json::from_slice(body).map_err(|_not_ours| "input")?),
        RecordKind::Report => report(body)?,
        RecordKind::Process => {
            let row = exact::<ProcessRow>(body, "process row")?;
            Body::Process(Process { pid: Pid(row.pid), start_ticks: row.start_ticks, comm: Comm(row.comm) })
        }
        RecordKind::Mapping => Body::Mapping(Box::new(mapping(body)?)),
        RecordKind::Names => Body::Names(body),
    })
}

fn exact<T: Wire>(body: &[u8], what: &'static str) -> Result<T, &'static str> {
    match T::from_prefix(body) {
        Some((row, [])) => Ok(row),
        _ => Err(what),
    }
}

fn sample(body: &[u8]) -> Result<Sample, &'static str> {
    let (head, frames) = StackSample::from_prefix(body).ok_or("sample header")?;
    let split = usize::try_from(head.kernel_len).map_err(|_too_long| "kernel stack length")?;
    let (kernel, user) = frames.split_at_checked(split).ok_or("kernel stack length")?;
    if u32::try_from(user.len()) != Ok(head.user_len) || head.copied_len != 0 {
        return Err("user stack length");
    }
    Ok(Sample {
        kind: SampleKind::ALL.into_iter().find(|k| *k as u16 == head.kind).ok_or("sample kind")?,
        pid: Pid(head.pid),
        tid: Tid(head.tid),
        comm: Comm(head.comm),
        cgroup: CgroupId(head.cgroup),
        weight: head.weight,
        uid: Uid(head.uid),
        reason: WaitReason::ALL.into_iter().find(|r| *r as u16 == head.reason).ok_or("wait reason")?,
        user_end: UnwindEnd::ALL.into_iter().find(|e| *e as u16 == head.user_end).ok_or("end of the user stack")?,
        other: (head.other_tid != 0).then_some(Tid(head.other_tid)),
        pair: head.pair,
        kernel: addresses(kernel).ok_or("kernel stack length")?,
        user: addresses(user).ok_or("user stack length")?,
    })
}

fn addresses(bytes: &[u8]) -> Option<Vec<u64>> {
    let (words, rest) = bytes.as_chunks::<8>();
    (rest.is_empty() && words.len() <= MAX_FRAMES).then(|| words.iter().map(|w| u64::from_ne_bytes(*w)).collect())
}

fn mapping(body: &[u8]) -> Result<Mapping, &'static str> {
    let (row, rest) = MappingRow::from_prefix(body).ok_or("mapping row")?;
    let (build_id, path) = rest.split_at_checked(usize::from(row.build_id_len)).ok_or("build id length")?;
    if path.len() != usize::from(row.path_len) {
        return Err("path length");
    }
    let MappingRow { pid, build_id_len: _, path_len: _, begin, end, offset, dev, inode } = row;
    Ok(Mapping { pid: Pid(pid), begin, end, offset, dev, inode, build_id: build_id.into(), path: path.into() })
}

fn report(body: &[u8]) -> Result<Body<'_>, &'static str> {
    let (head, rest) = ReportHeader::from_prefix(body).ok_or("report header")?;
    let (name, page) = rest.split_at_checked(usize::from(head.name_len)).ok_or("report name")?;
    let name = str::from_utf8(name).map_err(|_not_text| "report name")?;
    let name = PipelineName::try_from(name.to_owned()).map_err(|_bad| "report name")?;
    if u32::try_from(page.len()) != Ok(head.page_len) {
        return Err("report length");
    }
    Ok(Body::Report(name, if head.errno == 0 { Ok(page) } else { Err(i32::from(head.errno)) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{RawBatch, encode};

    fn decoded(bytes: &[u8]) -> Option<Mapping> {
        match Decoder::new(bytes).next()?.ok()?.body {
            Body::Mapping(mapping) => Some(*mapping),
            _ => None,
        }
    }

    #[test]
    fn a_mapping_comes_back_as_it_was_told_and_a_cut_one_does_not() {
        let mapping = Mapping {
            pid: Pid(7),
            begin: 0x5000,
            end: 0x9000,
            offset: 0x1000,
            dev: 65024,
            inode: 12,
            build_id: [1, 2, 3].into(),
            path: b"/usr/bin/\xffapp".as_slice().into(),
        };
        let mut batch = RawBatch::new();
        encode::mapping(&mut batch, Nanos(1), &mapping);
        assert_eq!(decoded(batch.bytes()), Some(mapping));
        let (mut lying, body) = (batch.bytes().to_vec(), size_of::<RecordHeader>());
        lying[body + 4] = 200;
        assert_eq!(decoded(&lying), None, "a build id that is longer than the record");
        lying[body + 4] = 2;
        assert_eq!(decoded(&lying), None, "a path that is longer than was said");
    }
}
