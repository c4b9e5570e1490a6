//! The recording format: wire records as they came, between a header that says where and a table of names. Raw bytes in
//! and out, nothing is interpreted on the way.
//!
//! `0 magic [u8; 8] | 8 version u32 | 12 host_len u32 | 16 host, JSON | padding to 8 | records … | Names record`.
//! A recording is written front to back and may end anywhere, because its writer may be killed: the reader yields every
//! record that is whole and says how it ended.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use agent_common::{RECORD_ALIGN, RecordHeader, RecordKind, Wire};
use serde::{Deserialize, Serialize};

use crate::event::{RawBatch, encode};
use crate::source::SourceError;
use crate::units::Nanos;

/// First bytes of a recording.
pub const MAGIC: [u8; 8] = *b"tg-rec\0\x01";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Longest host header.
pub const MAX_HOST_BYTES: usize = 64 << 10;
/// Longest record but for the table of names.
pub const MAX_RECORD_BYTES: usize = 1 << 20;
/// Longest table of names.
pub const MAX_NAMES_BYTES: usize = 64 << 20;

const BUFFER_BYTES: usize = 256 << 10;
const PREFIX_BYTES: usize = 16;

/// Whether a file that begins with these bytes is a recording.
pub fn is_recording(first: &[u8]) -> bool {
    first.starts_with(&MAGIC)
}

/// Where a recording was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Release of its kernel.
    pub kernel: String,
    /// Length of a tick, ns.
    pub tick_ns: u64,
    /// Clock of the records.
    pub clock: String,
    /// Version of the agent that recorded.
    pub agent: String,
    /// When the recording began, on that clock: a replay starts there.
    pub start_ns: u64,
}

impl Host {
    /// This agent on a host with that kernel, from `start` on.
    pub fn new(kernel: impl Into<String>, start: Nanos) -> Self {
        Self {
            kernel: kernel.into(),
            tick_ns: Nanos::TICK.0,
            clock: "CLOCK_MONOTONIC".to_owned(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            start_ns: start.0,
        }
    }
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With its table of names.
    Whole,
    /// Between two records, without a table of names: the recorder was stopped.
    Unnamed,
    /// Within a record: this many bytes of it are there and were left out.
    Cut(u64),
    /// At this byte stands what is no record; the rest was left out.
    Corrupt(u64),
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: BufWriter<W>,
    what: String,
}

impl Writer<File> {
    /// Creates the file at `path`, or empties it.
    pub fn create(path: &Path, host: &Host) -> Result<Self, SourceError> {
        let what = format!("write recording {}", path.display());
        let file = File::create(path).map_err(|e| failed(&what, &e))?;
        Self::to(file, what, host)
    }
}

impl<W: Write> Writer<W> {
    /// Writes to `out`; errors name it as `what`.
    pub fn to(out: W, what: impl Into<String>, host: &Host) -> Result<Self, SourceError> {
        let mut writer = Self { out: BufWriter::with_capacity(BUFFER_BYTES, out), what: what.into() };
        let json = serde_json::to_vec(host).expect("a host is plain data with string keys");
        let len = u32::try_from(json.len()).ok().filter(|_| json.len() <= MAX_HOST_BYTES).ok_or_else(|| {
            SourceError::File { what: writer.what.clone(), cause: "host header longer than 64 KiB".to_owned() }
        })?;
        let padding = [0; RECORD_ALIGN];
        let padded = (PREFIX_BYTES + json.len()).next_multiple_of(RECORD_ALIGN) - PREFIX_BYTES - json.len();
        for part in [&MAGIC[..], &VERSION.to_ne_bytes(), &len.to_ne_bytes(), &json, &padding[..padded]] {
            writer.write(part)?;
        }
        Ok(writer)
    }

    /// Appends the records of a batch, as they are. They are handed to the system at once: a recorder that is killed loses
    /// no more than the tick it was in.
    pub fn append(&mut self, batch: &RawBatch) -> Result<(), SourceError> {
        self.write(batch.bytes())?;
        self.out.flush().map_err(|e| failed(&self.what, &e))
    }

    /// Ends the recording with its table of names (JSON) and hands back what it was written to.
    pub fn finish(mut self, now: Nanos, names: &[u8]) -> Result<W, SourceError> {
        let mut last = RawBatch::new();
        encode::names(&mut last, now, names);
        self.append(&last)?;
        let Self { out, what } = self;
        out.into_inner().map_err(|e| failed(&what, e.error()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        self.out.write_all(bytes).map_err(|e| failed(&self.what, &e))
    }
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: BufReader<R>,
    what: String,
    host: Host,
    at: u64,
    tail: Option<Tail>,
    named: bool,
}

impl Reader<File> {
    /// Opens the recording at `path`.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let what = format!("read recording {}", path.display());
        let file = File::open(path).map_err(|e| failed(&what, &e))?;
        Self::from(file, what)
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `input`; errors name it as `what`.
    pub fn from(input: R, what: impl Into<String>) -> Result<Self, SourceError> {
        let (mut input, what) = (BufReader::with_capacity(BUFFER_BYTES, input), what.into());
        let refuse = |cause: String| SourceError::File { what: what.clone(), cause };
        let mut prefix = [0; PREFIX_BYTES];
        let got = fill(&mut input, &mut prefix).map_err(|e| failed(&what, &e))?;
        if got < PREFIX_BYTES || prefix[..8] != MAGIC {
            return Err(refuse(
                "not a recording: it does not begin with \"tg-rec\" (make one with `tidegate record --format events`)"
                    .to_owned(),
            ));
        }
        let half = |at: usize| u32::from_ne_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
        if half(8) != VERSION {
            return Err(refuse(format!(
                "format version {}, this tidegate reads {VERSION} (replay with the version that recorded it, on a host of \
                 the same byte order)",
                half(8)
            )));
        }
        let len = usize::try_from(half(12)).unwrap_or(usize::MAX);
        if len > MAX_HOST_BYTES {
            return Err(refuse(format!("host header of {len} bytes, want at most {MAX_HOST_BYTES}")));
        }
        let mut json = vec![0; (PREFIX_BYTES + len).next_multiple_of(RECORD_ALIGN) - PREFIX_BYTES];
        let got = fill(&mut input, &mut json).map_err(|e| failed(&what, &e))?;
        if got < len {
            return Err(refuse("cut short within its host header: it holds no record".to_owned()));
        }
        let host = serde_json::from_slice(&json[..len]).map_err(|e| refuse(format!("bad host header: {e}")))?;
        Ok(Self { input, what, host, at: (PREFIX_BYTES + json.len()) as u64, tail: None, named: false })
    }

    /// Where it was made.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// How it ended; nothing before the end was reached.
    pub fn tail(&self) -> Option<Tail> {
        self.tail
    }

    /// Appends the records up to the next tick, or about 256 KiB of them; `false` when there is no more.
    pub fn next(&mut self, batch: &mut RawBatch) -> Result<bool, SourceError> {
        let mut appended = 0;
        while self.tail.is_none() && appended < BUFFER_BYTES {
            let Some(record) = self.record()? else {
                break;
            };
            appended += record.len();
            batch.push_record(&record);
            if kind_of(&record) == Some(RecordKind::Tick as u16) {
                break;
            }
        }
        Ok(appended > 0)
    }

    /// The next whole record, without padding.
    fn record(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        let mut header = [0; size_of::<RecordHeader>()];
        let got = self.fill(&mut header)?;
        if got < header.len() {
            self.tail = Some(match got {
                0 if self.named => Tail::Whole,
                0 => Tail::Unnamed,
                _ => Tail::Cut(got as u64),
            });
            return Ok(None);
        }
        let Some((RecordHeader { len, kind, .. }, _)) = RecordHeader::from_prefix(&header) else {
            return Ok(None);
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let names = kind == RecordKind::Names as u16;
        let longest = if names { MAX_NAMES_BYTES } else { MAX_RECORD_BYTES };
        if len < header.len() || len > longest {
            self.tail = Some(Tail::Corrupt(self.at));
            return Ok(None);
        }
        // Grown as bytes arrive: a length that lies about a short file costs no memory.
        let mut record = Vec::with_capacity(len.min(BUFFER_BYTES));
        record.extend_from_slice(&header);
        let missing = (len - header.len()) as u64;
        let body = self.input.by_ref().take(missing).read_to_end(&mut record).map_err(|e| failed(&self.what, &e))?;
        if (body as u64) < missing {
            self.tail = Some(Tail::Cut(record.len() as u64));
            return Ok(None);
        }
        let mut padding = [0; RECORD_ALIGN];
        let padded = len.next_multiple_of(RECORD_ALIGN);
        self.fill(&mut padding[..padded - len])?;
        self.at += padded as u64;
        self.named = names;
        Ok(Some(record))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        fill(&mut self.input, buffer).map_err(|e| failed(&self.what, &e))
    }
}

fn kind_of(record: &[u8]) -> Option<u16> {
    RecordHeader::from_prefix(record).map(|(header, _)| header.kind)
}

/// Reads until the buffer is full or the input ends; returns how much was read.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

fn failed(what: &str, error: &io::Error) -> SourceError {
    SourceError::File { what: what.to_owned(), cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recording(ticks: u64) -> Vec<u8> {
        let mut writer = Writer::to(Vec::new(), "test", &Host::new("6.1.0", Nanos(7))).unwrap();
        for tick in 0..ticks {
            let mut batch = RawBatch::new();
            encode::loss(&mut batch, Nanos(tick), agent_common::LossReason::RingFull, tick);
            encode::tick(&mut batch, Nanos(tick));
            writer.append(&batch).unwrap();
        }
        writer.finish(Nanos(ticks), b"{\"frames\":[]}").unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(RawBatch, Tail), SourceError> {
        let mut reader = Reader::from(bytes, "test")?;
        let mut batch = RawBatch::new();
        while reader.next(&mut batch)? {}
        Ok((batch, reader.tail().unwrap()))
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = recording(100);
        let (batch, tail) = read(&bytes).unwrap();
        assert_eq!(tail, Tail::Whole);
        assert!(bytes.ends_with(batch.bytes()), "records are kept byte for byte");
        assert_eq!(Reader::from(&bytes[..], "test").unwrap().host().start_ns, 7);
    }

    #[test]
    fn a_recording_cut_anywhere_yields_what_was_whole_and_says_so() {
        let bytes = recording(5);
        let whole = read(&bytes).unwrap().0;
        let mut unnamed = 0;
        for cut in 0..bytes.len() {
            match read(&bytes[..cut]) {
                Ok((batch, tail)) => {
                    assert!(whole.bytes().starts_with(batch.bytes()), "cut at {cut}");
                    // Only the padding of the last record may be missing without being missed.
                    assert!(tail != Tail::Whole || cut + 8 > bytes.len(), "cut at {cut}");
                    unnamed += u32::from(tail == Tail::Unnamed);
                }
                Err(e) => assert!(e.to_string().starts_with("test: "), "{e}"),
            }
        }
        assert!(unnamed >= 10, "a cut between two records is told from one within");
    }

    #[test]
    fn another_file_or_version_is_refused_by_name() {
        let told = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(told(b"\x7fELF").contains("not a recording"));
        let mut other = recording(1);
        other[8] = 9;
        assert!(told(&other).contains("format version 9"));
        let mut other = recording(1);
        other[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(told(&other).contains("host header of"));
    }

    #[test]
    fn a_length_that_lies_ends_the_recording_without_allocating_it() {
        let mut bytes = recording(3);
        let first = bytes.len() - read(&bytes).unwrap().0.bytes().len();
        bytes[first..first + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(read(&bytes).unwrap().1, Tail::Corrupt(first as u64));
    }

    proptest! {
        #[test]
        fn damaged_recordings_never_panic(at in 0_usize..400, value in any::<u8>()) {
            let mut bytes = recording(5);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Ok((batch, _)) = read(&bytes) {
                prop_assert!(batch.bytes().len() <= bytes.len() + 8);
            }
        }
    }
}
