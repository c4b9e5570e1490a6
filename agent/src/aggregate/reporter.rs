//! The report side of one pipeline: pages and reports over the socket in, what they say of the open tick out. Keeps the
//! newest report as the baseline of the next; never counts one twice.

use tidegate_client::abi::{Acknowledgement, SignalsReport};

use crate::aggregate::report::{self, Report, ReportFault};
use crate::aggregate::window::PipelineWindow;
use crate::units::{Nanos, Pid};

/// Reports in a row with fallen counters that make a restart.
const RESTARTED: u32 = 3;

/// The report side of a pipeline.
#[derive(Debug)]
pub(super) struct Reporter {
    /// Process of the pipeline.
    pub(super) pid: Pid,
    before: Option<(Nanos, Report)>,
    newest: Option<(Nanos, Report)>,
    /// Reports whose counters fell, newest of them, and how many came in a row: a restart, or a lie.
    fallen: Option<(Nanos, Report, u32)>,
    window: PipelineWindow,
    /// Sequence of the newest report or acknowledgement over the socket.
    sequence: Option<u64>,
    /// What the pipeline said it runs by.
    runs_by: Option<Acknowledgement>,
}

impl Reporter {
    /// Of a pipeline that has just registered.
    pub(super) fn new(pid: Pid) -> Self {
        let window = PipelineWindow::default();
        Self { pid, before: None, newest: None, fallen: None, window, sequence: None, runs_by: None }
    }

    /// Its page was read, or could not be.
    pub(super) fn page(&mut self, time: Nanos, page: Result<&[u8], i32>) {
        self.take(time, page.map_err(ReportFault::Unreadable).and_then(report::parse));
    }

    /// It reported over the socket.
    pub(super) fn posted(&mut self, time: Nanos, said: &SignalsReport) {
        if self.is_news(said.sequence) {
            self.take(time, report::posted(said, self.runs_by.as_ref()));
        }
    }

    /// It said over the socket what it runs by.
    pub(super) fn acknowledged(&mut self, ack: Acknowledgement) {
        if self.is_news(ack.sequence) {
            self.runs_by = Some(ack);
        }
    }

    /// Ends the tick: what was said in it.
    pub(super) fn cut(&mut self) -> PipelineWindow {
        self.before = self.newest.take().or_else(|| self.before.take());
        std::mem::take(&mut self.window)
    }

    /// Whether something of this sequence is no repetition of what was taken in before.
    fn is_news(&mut self, sequence: u64) -> bool {
        let news = self.sequence.is_none_or(|seen| sequence > seen);
        if news {
            self.sequence = Some(sequence);
        }
        news
    }

    /// Counters below the baseline. One such report is no restart: were it the next baseline, the counters that are back
    /// a tick later would look like a burst. Those that stay down, and rise from there, become the baseline.
    fn fell(&mut self, time: Nanos, report: Report) {
        let rising = self.fallen.take().filter(|(then, low, _)| report.since(low, time.since(*then)).is_ok());
        let in_a_row = rising.map_or(1, |(.., count)| count + 1);
        if in_a_row >= RESTARTED {
            self.newest = Some((time, report));
        } else {
            self.fallen = Some((time, report, in_a_row));
        }
    }

    fn take(&mut self, time: Nanos, report: Result<Report, ReportFault>) {
        let report = match report {
            Ok(report) => report,
            Err(fault) => {
                self.window.fault = Some(fault);
                return;
            }
        };
        let levels = report.levels();
        let delta = match &self.before {
            Some((then, before)) if time > *then => Some(report.since(before, time.since(*then))),
            Some(_) => return, // Twice at one instant: the first counts.
            None => None,
        };
        match delta {
            Some(Err(fault @ ReportFault::Fell(_))) => {
                self.window.fault = Some(fault);
                self.fell(time, report);
                return;
            }
            Some(Err(fault)) => self.window.fault = Some(fault),
            Some(Ok(delta)) => {
                self.window.levels = Some(levels);
                self.window.report = Some(delta);
            }
            None => self.window.levels = Some(levels),
        }
        (self.newest, self.fallen) = (Some((time, report)), None);
    }
}
