//! Which descriptor is what: bytes in and out of each within a tick in; sink and input out. Knows no names of services.
//!
//! By the bytes of the last five seconds or so, older ones weighing less, so that a log that is written now and then is no
//! sink, and a connection that is made anew takes over at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_common::{FLOW_ANSWERED, FLOW_READS, FLOW_WRITES};

use crate::aggregate::flows::FlowDelta;
use crate::units::Nanos;

/// A descriptor in its role, and how it came to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// Its number.
    pub fd: u32,
    /// Where it leads, as /proc shows it; empty when that is not known.
    pub target: Arc<str>,
    /// Its share of all bytes of that direction.
    pub share: f64,
    /// Descriptors in the same role, this one among them.
    pub among: usize,
}

/// Whether a sink answers its flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
    /// By something to read, or by the return of a sync: a flush is a run of writes up to there.
    Always,
    /// Not: each write is taken for a flush.
    Never,
}

/// Follows the descriptors of a process.
#[derive(Debug, Default)]
pub struct Roles {
    flows: BTreeMap<(u32, Nanos), Tally>,
    sink: Option<(u32, Nanos)>,
    /// Bytes out that make a descriptor a sink; without a sink there are none.
    like_the_sink: Option<f64>,
}

#[derive(Clone, Debug)]
struct Tally {
    target: Arc<str>,
    bytes_in: f64,
    bytes_out: f64,
    answered: f64,
}

/// Weight of a tick against the one after it: half after 3.5 s.
const FADES: f64 = 0.98;
/// What is left of a descriptor that nobody has used for long, bytes.
const NOTHING: f64 = 0.5;
/// Descriptors with this share of the sink's bytes are sinks too: connections of one pool.
const LIKE_THE_SINK: f64 = 0.1;
/// Another descriptor must have so many times the bytes of the sink to take its place.
const TAKES_OVER: f64 = 1.2;
/// Share of a sink's bytes that is answered from which on it answers.
const ANSWERS: f64 = 0.5;

impl Roles {
    /// Takes in a tick.
    pub fn observe(&mut self, flows: &[FlowDelta]) {
        for tally in self.flows.values_mut() {
            tally.bytes_in *= FADES;
            tally.bytes_out *= FADES;
            tally.answered *= FADES;
        }
        for flow in flows {
            let fresh = || Tally { target: Arc::clone(&flow.target), bytes_in: 0.0, bytes_out: 0.0, answered: 0.0 };
            let tally = self.flows.entry((flow.fd, flow.first)).or_insert_with(fresh);
            tally.bytes_in += bytes(flow.ways[FLOW_READS].bytes);
            tally.bytes_out += bytes(flow.ways[FLOW_WRITES].bytes);
            tally.answered += bytes(flow.flushes[FLOW_ANSWERED].bytes);
        }
        self.flows.retain(|_, tally| tally.bytes_in + tally.bytes_out > NOTHING);
        let out = |key: &(u32, Nanos)| self.flows.get(key).map_or(0.0, |tally| tally.bytes_out);
        let before = self.sink.filter(|key| out(key) > 0.0);
        let most = self.flows.iter().filter(|(_, tally)| tally.bytes_out > 0.0);
        let most = most.max_by(|a, b| a.1.bytes_out.total_cmp(&b.1.bytes_out)).map(|(key, _)| *key);
        self.sink = match (before, most) {
            (Some(before), Some(most)) if out(&most) < TAKES_OVER * out(&before) => Some(before),
            (_, most) => most,
        };
        self.like_the_sink = self.sink.map(|key| LIKE_THE_SINK * out(&key));
    }

    /// Whether flushes go out by this descriptor.
    pub fn is_sink(&self, flow: &FlowDelta) -> bool {
        self.flows.get(&(flow.fd, flow.first)).is_some_and(|tally| self.among_sinks(tally))
    }

    /// The sink.
    pub fn sink(&self) -> Option<Descriptor> {
        let key = self.sink?;
        let tally = self.flows.get(&key)?;
        let all: f64 = self.flows.values().map(|t| t.bytes_out).sum();
        let among = self.flows.values().filter(|t| self.among_sinks(t)).count();
        Some(Descriptor { fd: key.0, target: Arc::clone(&tally.target), share: tally.bytes_out / all, among })
    }

    /// The input: where most bytes come in, the sinks left out.
    pub fn input(&self) -> Option<Descriptor> {
        let inputs = || self.flows.iter().filter(|(_, t)| t.bytes_in > 0.0 && !self.among_sinks(t));
        let (key, tally) = inputs().max_by(|a, b| a.1.bytes_in.total_cmp(&b.1.bytes_in))?;
        let all: f64 = inputs().map(|(_, t)| t.bytes_in).sum();
        let share = tally.bytes_in / all;
        Some(Descriptor { fd: key.0, target: Arc::clone(&tally.target), share, among: inputs().count() })
    }

    /// Whether the sinks answer.
    pub fn answering(&self) -> Option<Answering> {
        let sinks = || self.flows.values().filter(|t| self.among_sinks(t));
        let (out, answered) = (sinks().map(|t| t.bytes_out).sum::<f64>(), sinks().map(|t| t.answered).sum::<f64>());
        (out > 0.0).then_some(if answered >= ANSWERS * out { Answering::Always } else { Answering::Never })
    }

    fn among_sinks(&self, tally: &Tally) -> bool {
        self.like_the_sink.is_some_and(|least| tally.bytes_out >= least)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn bytes(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::{FlowCalls, FlowFlushes};

    pub(super) fn flow(fd: u32, first: u64, bytes_in: u64, bytes_out: u64, answered: u64) -> FlowDelta {
        let moved = |bytes| FlowCalls { calls: 1, bytes, ..FlowCalls::ZERO };
        FlowDelta {
            fd,
            first: Nanos(first),
            target: Arc::from(format!("/{fd}")),
            ways: [moved(bytes_in), moved(bytes_out), FlowCalls::ZERO],
            flushes: [FlowFlushes { flushes: 1, bytes: answered, ..FlowFlushes::ZERO }, FlowFlushes::ZERO],
            open_bytes: 0,
            untold: 0,
        }
    }

    #[test]
    fn the_sink_is_where_most_goes_out_and_the_input_where_most_comes_in_besides() {
        let mut roles = Roles::default();
        assert_eq!((roles.sink(), roles.input(), roles.answering()), (None, None, None));
        // Records in and short acknowledgements back; flushes out and short answers in; a log.
        let tick =
            [flow(4, 1, 50_000, 16, 0), flow(5, 1, 10_000, 16, 0), flow(7, 1, 8, 40_000, 40_000), flow(1, 1, 0, 90, 0)];
        roles.observe(&tick);
        let (sink, input) = (roles.sink().unwrap(), roles.input().unwrap());
        assert_eq!((sink.fd, sink.among, &*sink.target), (7, 1, "/7"));
        assert!((0.99..1.0).contains(&sink.share));
        assert_eq!((input.fd, input.among), (4, 2));
        assert_eq!(roles.answering(), Some(Answering::Always));
        assert!(roles.is_sink(&tick[2]) && !roles.is_sink(&tick[0]));
    }

    #[test]
    fn connections_of_a_pool_are_one_sink_and_a_new_connection_takes_over() {
        let mut roles = Roles::default();
        roles.observe(&[flow(7, 1, 8, 40_000, 40_000), flow(8, 1, 8, 39_000, 39_000)]);
        assert_eq!(roles.sink().unwrap().among, 2);
        for _ in 0..40 {
            roles.observe(&[flow(7, 900, 8, 80_000, 0)]);
        }
        let sink = roles.sink().unwrap();
        assert_eq!((sink.fd, sink.among), (7, 1), "the old ones have faded");
        assert_eq!(roles.answering(), Some(Answering::Never));
        assert!(!roles.is_sink(&flow(7, 1, 0, 0, 0)), "the number has passed on");
    }

    #[test]
    fn a_burst_elsewhere_does_not_become_the_sink() {
        let mut roles = Roles::default();
        for _ in 0..50 {
            roles.observe(&[flow(7, 1, 8, 40_000, 40_000)]);
        }
        roles.observe(&[flow(7, 1, 8, 40_000, 40_000), flow(1, 1, 0, 100_000, 0)]);
        assert_eq!(roles.sink().unwrap().fd, 7);
    }
}
