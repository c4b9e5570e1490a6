//! What goes over the laboratory's sockets: records to the pipeline, flushes to the sink, acknowledgements back. All
//! numbers little-endian.
//!
//! Record: `length u32 | scheduled_ns u64 | sequence u64 | payload`, the length counting what follows it.
//! Acknowledgement of records: `u64`, how many of this connection's records the sink has, in all.
//! Flush: `length u32 | records u32 | id u64 | body`, the body being `raw length u32 | LZ4 block` of whole records.
//! Acknowledgement of a flush: its id, `u64`.

use anyhow::{Result, bail};
use tidegate_client::Nanos;

/// Bytes of a record before its payload.
pub(crate) const RECORD_HEADER: usize = 20;
/// Longest record taken; a longer one is a mistake on the wire.
pub(crate) const RECORD_MAX: usize = 4 << 20;
/// Bytes of a flush before its body.
pub(crate) const FLUSH_HEADER: usize = 16;
/// Longest body of a flush taken.
pub(crate) const FLUSH_MAX: usize = 1 << 30;

/// A record as it lies in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordView<'a> {
    /// When its sender meant to send it, on the monotonic clock.
    pub(crate) scheduled: Nanos,
    /// Rises by one with each record of a connection.
    pub(crate) sequence: u64,
    /// What it carries.
    pub(crate) payload: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The record at the head of `bytes` and its length on the wire; `None` while it is incomplete.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>> {
        let Some(length) = le_u32(bytes, 0) else { return Ok(None) };
        let total = 4 + length;
        if !(RECORD_HEADER..=RECORD_MAX).contains(&total) {
            bail!(
                "record of {total} bytes, want {RECORD_HEADER} to {RECORD_MAX} (is the sender a `tidegate-lab load`?)"
            );
        }
        if bytes.len() < total {
            return Ok(None);
        }
        let (Some(scheduled), Some(sequence)) = (le_u64(bytes, 4), le_u64(bytes, 12)) else { return Ok(None) };
        Ok(Some((Self { scheduled: Nanos(scheduled), sequence, payload: &bytes[RECORD_HEADER..total] }, total)))
    }

    /// Appends the record to `into`.
    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        let length = u32::try_from(RECORD_HEADER - 4 + self.payload.len()).unwrap_or(u32::MAX);
        into.extend_from_slice(&length.to_le_bytes());
        into.extend_from_slice(&self.scheduled.0.to_le_bytes());
        into.extend_from_slice(&self.sequence.to_le_bytes());
        into.extend_from_slice(self.payload);
    }
}

/// The head of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlushHeader {
    /// Bytes of the body.
    pub(crate) length: usize,
    /// Records in it.
    pub(crate) records: u64,
    /// Identifies it in the acknowledgement.
    pub(crate) id: u64,
}

impl FlushHeader {
    /// As it goes over the wire.
    pub(crate) fn to_bytes(self) -> [u8; FLUSH_HEADER] {
        let mut bytes = [0; FLUSH_HEADER];
        bytes[..4].copy_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes());
        bytes[4..8].copy_from_slice(&u32::try_from(self.records).unwrap_or(u32::MAX).to_le_bytes());
        bytes[8..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// From the wire.
    pub(crate) fn parse(bytes: &[u8; FLUSH_HEADER]) -> Result<Self> {
        let length = le_u32(bytes, 0).unwrap_or(usize::MAX);
        if length > FLUSH_MAX {
            bail!("flush of {length} bytes, at most {FLUSH_MAX} (is the sender a `tidegate-lab pipeline`?)");
        }
        let records = le_u32(bytes, 4).unwrap_or(0) as u64;
        Ok(Self { length, records, id: le_u64(bytes, 8).unwrap_or(0) })
    }
}

/// The raw records of a flush's body.
pub(crate) fn unpack(body: &[u8]) -> Result<Vec<u8>> {
    let Some(raw) = le_u32(body, 0).filter(|raw| *raw <= FLUSH_MAX) else {
        bail!("flush body of {} bytes has no good raw length", body.len());
    };
    Ok(lz4_flex::block::decompress(&body[4..], raw)?)
}

fn le_u32(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_wire_and_is_incomplete_until_its_last_byte() {
        let record = RecordView { scheduled: Nanos(7), sequence: 9, payload: b"hello" };
        let mut bytes = Vec::new();
        record.write(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(RecordView::parse(&bytes[..cut]).unwrap(), None, "cut at {cut}");
        }
        bytes.push(0xff);
        assert_eq!(RecordView::parse(&bytes).unwrap(), Some((record, bytes.len() - 1)));
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error_not_a_wait() {
        assert!(RecordView::parse(&15_u32.to_le_bytes()).is_err());
        assert!(RecordView::parse(&u32::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn a_flush_header_survives_the_wire() {
        let header = FlushHeader { length: 300, records: 12, id: 1 << 40 };
        assert_eq!(FlushHeader::parse(&header.to_bytes()).unwrap(), header);
    }
}
