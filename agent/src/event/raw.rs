//! A batch of wire records, and the encoders that the user-space sources use.

use agent_common::{
    FlowRow, LedgerRow, LossReason, LossRow, MappingRow, ProcessRow, RECORD_ALIGN, RecordHeader, RecordKind,
    ReportHeader, SocketRow, StackSample, SyscallRow, TaskRow, ThreadRow, UsageRow,
};

use crate::event::{Input, Mapping, Process};
use crate::units::{Nanos, PipelineName};

/// Wire records, one after the other, each padded to [`RECORD_ALIGN`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawBatch {
    bytes: Vec<u8>,
}

impl RawBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// A batch of bytes that may be anything.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends a record as the kernel wrote it, header included.
    pub fn push_record(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.pad();
    }

    /// Appends all records of another batch.
    pub fn push_records(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
    }

    /// Appends a record made of parts.
    pub fn push(&mut self, kind: RecordKind, time: Nanos, parts: &[&[u8]]) {
        let len = size_of::<RecordHeader>() + parts.iter().map(|p| p.len()).sum::<usize>();
        let Ok(len) = u32::try_from(len) else {
            return; // Nothing this program encodes is that long; an absurd input is left out rather than cut.
        };
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&time.0.to_ne_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(RECORD_ALIGN);
        self.bytes.resize(padded, 0);
    }
}

/// Encoders, one a record kind that user space makes.
pub mod encode {
    use super::{
        FlowRow, Input, LedgerRow, LossReason, LossRow, Mapping, MappingRow, Nanos, PipelineName, Process, ProcessRow,
        RawBatch, RecordKind, ReportHeader, SocketRow, StackSample, SyscallRow, TaskRow, ThreadRow, UsageRow,
    };
    use agent_common::Wire;

    /// A tick ends here.
    pub fn tick(batch: &mut RawBatch, time: Nanos) {
        batch.push(RecordKind::Tick, time, &[]);
    }

    /// A request from the control socket.
    pub fn input(batch: &mut RawBatch, time: Nanos, input: &Input) {
        let json = serde_json::to_vec(input).expect("an input is plain data with string keys");
        batch.push(RecordKind::Input, time, &[&json]);
    }

    /// A report page, or the errno with which reading it failed.
    pub fn report(batch: &mut RawBatch, time: Nanos, name: &PipelineName, page: Result<&[u8], u16>) {
        let (errno, bytes) = match page {
            Ok(bytes) => (0, bytes),
            Err(errno) => (errno.max(1), &[][..]),
        };
        let name = name.as_str().as_bytes();
        let header = ReportHeader {
            name_len: u16::try_from(name.len()).expect("a name has at most 64 bytes"),
            errno,
            page_len: u32::try_from(bytes.len()).expect("a report page is cut at 4 KiB"),
        };
        batch.push(RecordKind::Report, time, &[header.as_bytes(), name, bytes]);
    }

    /// Cost counters of a process.
    pub fn task(batch: &mut RawBatch, time: Nanos, row: &TaskRow) {
        batch.push(RecordKind::Task, time, &[row.as_bytes()]);
    }

    /// What a process uses and waits for.
    pub fn usage(batch: &mut RawBatch, time: Nanos, row: &UsageRow) {
        batch.push(RecordKind::Usage, time, &[row.as_bytes()]);
    }

    /// System call counters.
    pub fn syscall(batch: &mut RawBatch, time: Nanos, row: &SyscallRow) {
        batch.push(RecordKind::Syscall, time, &[row.as_bytes()]);
    }

    /// Totals of a thread.
    pub fn thread(batch: &mut RawBatch, time: Nanos, row: &ThreadRow) {
        batch.push(RecordKind::Thread, time, &[row.as_bytes()]);
    }

    /// A stack; the lengths in `sample` are set to those of the frames.
    pub fn stack(batch: &mut RawBatch, time: Nanos, sample: StackSample, kernel: &[u64], user: &[u64]) {
        let bytes = |frames: &[u64]| frames.iter().flat_map(|f| f.to_ne_bytes()).collect::<Vec<u8>>();
        let (kernel, user) = (bytes(kernel), bytes(user));
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0);
        let head = StackSample { kernel_len: length(&kernel), user_len: length(&user), copied_len: 0, ..sample };
        batch.push(RecordKind::Stack, time, &[head.as_bytes(), &kernel, &user]);
    }

    /// A socket.
    pub fn socket(batch: &mut RawBatch, time: Nanos, row: &SocketRow) {
        batch.push(RecordKind::Socket, time, &[row.as_bytes()]);
    }

    /// A descriptor of a watched process.
    pub fn flow(batch: &mut RawBatch, time: Nanos, row: &FlowRow) {
        batch.push(RecordKind::Flow, time, &[row.as_bytes()]);
    }

    /// A loss counter.
    pub fn loss(batch: &mut RawBatch, time: Nanos, reason: LossReason, count: u64) {
        let row = LossRow { reason: reason as u32, reserved: 0, count };
        batch.push(RecordKind::Loss, time, &[row.as_bytes()]);
    }

    /// What became of the firings of the sampler's timers.
    pub fn ledger(batch: &mut RawBatch, time: Nanos, row: &LedgerRow) {
        batch.push(RecordKind::Ledger, time, &[row.as_bytes()]);
    }

    /// Who a process is.
    pub fn process(batch: &mut RawBatch, time: Nanos, process: &Process) {
        let row =
            ProcessRow { pid: process.pid.0, reserved: 0, start_ticks: process.start_ticks, comm: process.comm.0 };
        batch.push(RecordKind::Process, time, &[row.as_bytes()]);
    }

    /// Where code of a process is mapped. A path that no record can hold is cut.
    pub fn mapping(batch: &mut RawBatch, time: Nanos, mapping: &Mapping) {
        let Mapping { pid, begin, end, offset, dev, inode, build_id, path } = mapping;
        let cut = |bytes: &'_ [u8]| u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        let row = MappingRow {
            pid: pid.0,
            build_id_len: cut(build_id),
            path_len: cut(path),
            begin: *begin,
            end: *end,
            offset: *offset,
            dev: *dev,
            inode: *inode,
        };
        let (build_id, path) = (&build_id[..usize::from(row.build_id_len)], &path[..usize::from(row.path_len)]);
        batch.push(RecordKind::Mapping, time, &[row.as_bytes(), build_id, path]);
    }

    /// The table of names that ends a recording.
    pub fn names(batch: &mut RawBatch, time: Nanos, json: &[u8]) {
        batch.push(RecordKind::Names, time, &[json]);
    }
}
