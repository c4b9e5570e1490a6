//! JSON bodies of a pipeline that reports over the socket, for want of a page, and of those who set its bounds and mode.
//! Unknown fields are refused.

use serde::{Deserialize, Serialize};

use super::json::Mode;
use super::page::{REPORT_HISTOGRAM_WORDS, REPORT_WORDS, ReportWord};

macro_rules! signals_report {
    ($($(#[$doc:meta])* $field:ident $word:ident;)*) => {
        /// Body of `POST /v1/pipelines/{name}/signals`: what a report page would say, word by word. Counters are
        /// cumulative since the registration, so that a report that was lost costs nothing; what is left out is 0.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct SignalsReport {
            /// Rises with each report and each acknowledgement of the pipeline; one that does not rise is a repetition and
            /// is left aside.
            pub sequence: u64,
            $($(#[$doc])* #[serde(default, skip_serializing_if = "is_zero")] pub $field: u64,)*
            /// Events by latency: pairs of a bucket of the report page's histogram and its count.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub latency: Vec<(usize, u64)>,
        }

        impl SignalsReport {
            /// The words of the page that would say the same.
            pub fn words(&self) -> [u64; REPORT_WORDS] {
                let mut words = [0; REPORT_WORDS];
                $(words[ReportWord::$word as usize] = self.$field;)*
                words
            }
        }
    };
}

signals_report! {
    /// Events taken in.
    events_in EventsIn;
    /// Events acknowledged by the sink.
    events_out EventsOut;
    /// Bytes of the events taken in.
    bytes_in BytesIn;
    /// Bytes of the events acknowledged.
    bytes_out BytesOut;
    /// Flushes acknowledged.
    flushes Flushes;
    /// Flushes because the oldest event was old enough.
    flushes_by_age FlushesByAge;
    /// Flushes because the batch was full.
    flushes_by_size FlushesBySize;
    /// Flushes that drained a backlog.
    flushes_by_backlog FlushesByBacklog;
    /// Panic flushes.
    flushes_by_panic FlushesByPanic;
    /// Flushes because the queue had waited as long as a flush costs.
    flushes_by_waiting FlushesByWaiting;
    /// Sum of the durations of acknowledged flushes, ns.
    flush_ns FlushNs;
    /// Sum of bytes squared, modulo 2^64.
    flush_bytes_squared FlushBytesSquared;
    /// Sum of bytes times microseconds, modulo 2^64.
    flush_bytes_us FlushBytesUs;
    /// Sum of microseconds squared, modulo 2^64.
    flush_us_squared FlushUsSquared;
    /// Flushes that failed.
    flush_errors FlushErrors;
    /// Events lost.
    events_lost EventsLost;
    /// Time that senders waited for room, ns.
    stalled_ns StalledNs;
    /// Events waiting now.
    queue_events QueueEvents;
    /// Bytes waiting now.
    queue_bytes QueueBytes;
    /// Capacity of the queue, bytes.
    queue_capacity QueueCapacity;
    /// Generation of the settings in use.
    generation Generation;
    /// Batch size in use, bytes.
    batch_bytes BatchBytes;
    /// Flush interval in use, microseconds.
    flush_interval_us FlushIntervalUs;
    /// Boot-time clock of the pipeline when it wrote this, ns.
    updated_ns UpdatedNs;
}

impl SignalsReport {
    /// The histogram of the page that would say the same; a bucket that no page has is left out.
    pub fn histogram(&self) -> [u64; REPORT_HISTOGRAM_WORDS] {
        let mut words = [0_u64; REPORT_HISTOGRAM_WORDS];
        for (bucket, count) in &self.latency {
            if let Some(word) = words.get_mut(*bucket) {
                *word = word.saturating_add(*count);
            }
        }
        words
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Body of `POST /v1/pipelines/{name}/ack`: these settings are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// As in [`SignalsReport::sequence`].
    pub sequence: u64,
    /// Generation of the settings.
    pub generation: u64,
    /// Batch size in use, bytes.
    pub batch_bytes: u64,
    /// Flush interval in use, microseconds.
    pub flush_interval_us: u64,
}

/// Body of `PUT /v1/pipelines/{name}/bounds`: what is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundsRequest {
    /// Bounds of the batch size, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_bytes: Option<BoundRange>,
    /// Bounds of the flush interval, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flush_interval_us: Option<BoundRange>,
}

/// Bounds of one knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundRange {
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
}

/// Body of `POST /v1/pipelines/{name}/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// Whether the agent may act.
    pub mode: Mode,
}
