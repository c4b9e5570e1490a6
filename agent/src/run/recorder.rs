//! The recording of a live run: batches in, a file out, for as long as the file takes them.
//!
//! A recording is an aid and never a reason to end: when it cannot be written it stops there, says so once in the log and
//! for as long as the agent lives in `degraded`. What was written until then can be replayed.

use std::fs::File;
use std::path::Path;

use crate::event::RawBatch;
use crate::source::SourceError;
use crate::source::recording::{Host, Writer};
use crate::units::Nanos;

/// Where a recording stands.
#[derive(Debug)]
pub(super) enum Recorder {
    /// Nobody asked for one.
    Off,
    /// It is written.
    Running(Writer<File>),
    /// It could not be written any further, and why.
    Stopped(String),
}

impl Recorder {
    /// Begins a recording at `path`, if there is one. A file that cannot be made is refused: whoever asked is still there.
    pub(super) fn begin(path: Option<&Path>, host: &Host) -> Result<Self, SourceError> {
        path.map_or(Ok(Self::Off), |path| Writer::create(path, host).map(Self::Running))
    }

    /// Appends a batch; the first that cannot be written is the last.
    pub(super) fn append(&mut self, batch: &RawBatch) {
        if let Self::Running(writer) = self
            && let Err(error) = writer.append(batch)
        {
            self.stop(&error);
        }
    }

    /// Why it stopped, if it did.
    pub(super) fn degraded(&self) -> Option<&str> {
        match self {
            Self::Stopped(why) => Some(why),
            Self::Off | Self::Running(_) => None,
        }
    }

    /// Whether names are still wanted for it.
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Ends it with the names of everything in it: what replays it may not be this host.
    pub(super) fn finish(&mut self, now: Nanos, names: &[u8]) {
        match std::mem::replace(self, Self::Off) {
            Self::Running(writer) => {
                if let Err(error) = writer.finish(now, names) {
                    self.stop(&error);
                }
            }
            ended => *self = ended,
        }
    }

    fn stop(&mut self, error: &SourceError) {
        let why = format!("{error}: the recording ends there (free room and start the agent anew to record on)");
        tracing::warn!("{why}");
        *self = Self::Stopped(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::encode;

    fn batch(bytes: usize) -> RawBatch {
        let mut batch = RawBatch::new();
        encode::names(&mut batch, Nanos(1), &vec![b' '; bytes]);
        batch
    }

    #[test]
    fn a_full_disk_stops_the_recording_and_is_told_with_path_and_cause() {
        let mut recorder = Recorder::begin(Some(Path::new("/dev/full")), &Host::new("6.1.0", Nanos(0))).unwrap();
        assert_eq!(recorder.degraded(), None);
        for _ in 0..2 {
            recorder.append(&batch(1 << 20));
            let why = recorder.degraded().unwrap();
            assert!(why.contains("/dev/full") && why.contains("No space left"), "{why}");
        }
        recorder.finish(Nanos(2), b"{}");
        assert!(recorder.degraded().is_some() && !recorder.is_running());
    }

    #[test]
    fn a_disk_that_is_full_at_the_end_is_no_failure_either() {
        let mut recorder = Recorder::begin(Some(Path::new("/dev/full")), &Host::new("6.1.0", Nanos(0))).unwrap();
        assert!(recorder.is_running());
        recorder.finish(Nanos(2), b"{}");
        assert!(recorder.degraded().is_some());
    }

    #[test]
    fn a_recording_that_cannot_be_made_is_refused() {
        assert!(Recorder::begin(Some(Path::new("/proc/x/y")), &Host::new("6.1.0", Nanos(0))).is_err());
    }
}
