//! The live source there is: the kernel's probes where they load, the bare host where they do not. The agent runs on
//! either, and says what it cannot see.

use crate::config::Config;
use crate::event::RawBatch;
#[cfg(feature = "ebpf")]
use crate::source::ebpf::{EbpfSource, LoadOptions};
use crate::source::host::HostSource;
use crate::source::inbox::{InboxSender, inbox};
use crate::source::{EventSource, Measuring, Pace, Pulled, SourceError, Wanted};
use crate::units::Nanos;

/// A source that follows this host.
#[derive(Debug)]
pub(super) enum LiveSource {
    /// With probes.
    #[cfg(feature = "ebpf")]
    Ebpf(Box<EbpfSource>),
    /// Without, and why.
    Host(Box<HostSource>, String),
}

impl LiveSource {
    /// With probes if they load. Never fails: an agent without probes still tunes from reports.
    #[cfg(feature = "ebpf")]
    pub(super) fn open(config: &Config) -> (Self, InboxSender) {
        let options = LoadOptions {
            hertz: config.hertz,
            latency_slots: config.latency_slots,
            unwind_mib: config.unwind_mib,
            ..LoadOptions::default()
        };
        let (sender, receiver) = inbox();
        match EbpfSource::new(options, receiver) {
            Ok(source) => (Self::Ebpf(Box::new(source)), sender),
            // The inbox went down with the attempt; nobody holds its sender yet.
            Err(error) => Self::without(error.to_string()),
        }
    }

    /// Without probes: this binary was built so.
    #[cfg(not(feature = "ebpf"))]
    pub(super) fn open(_config: &Config) -> (Self, InboxSender) {
        Self::without("probes: this binary was built without them (build with the feature `ebpf`)".to_owned())
    }

    fn without(why: String) -> (Self, InboxSender) {
        tracing::warn!("{why}");
        let (sender, receiver) = inbox();
        (Self::Host(Box::new(HostSource::new(receiver)), why), sender)
    }

    /// Says what is wanted from now on; returns what cannot be had.
    pub(super) fn apply(&mut self, wanted: &Wanted) -> Vec<String> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.apply(wanted),
            Self::Host(source, _) => {
                // It refuses every probe in the same words; why there are none is told once, by `degraded`.
                drop(source.apply(wanted));
                Vec::new()
            }
        }
    }

    /// Probes that are attached.
    pub(super) fn attached(&self) -> Vec<&'static str> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.attached(),
            Self::Host(source, _) => source.attached(),
        }
    }

    /// What cannot be seen whatever is wanted.
    pub(super) fn degraded(&self) -> Vec<String> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.degraded(),
            Self::Host(_, why) => vec![why.clone()],
        }
    }

    /// How often it ticks from now on.
    pub(super) fn set_pace(&mut self, pace: Pace) {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.set_pace(pace),
            Self::Host(source, _) => source.set_pace(pace),
        }
    }

    /// What is worth knowing of the way in which facts come.
    pub(super) fn remarks(&self) -> Vec<String> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.remarks(),
            Self::Host(_, _) => Vec::new(),
        }
    }

    /// Has the kernel keep the run time of the probes, or no more.
    pub(super) fn measure_run_time(&mut self, on: Measuring) {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.measure_run_time(on),
            Self::Host(_, _) => {
                let (Measuring::On | Measuring::Off) = on; // It has none.
            }
        }
    }

    /// Samples CPUs and waits so many times as rarely as configured; returns why not, if not.
    pub(super) fn thin(&mut self, cpu: u32, waits: u32) -> Option<String> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.thin(cpu, waits),
            Self::Host(_, _) => {
                tracing::debug!(cpu, waits, "nothing is sampled here");
                None
            }
        }
    }

    /// Run time of the probes, where the kernel keeps it.
    pub(super) fn probes_time(&self) -> Option<Nanos> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.run_time(),
            Self::Host(_, _) => None,
        }
    }
}

impl EventSource for LiveSource {
    async fn pull(&mut self, until: Nanos, batch: &mut RawBatch) -> Result<Pulled, SourceError> {
        match self {
            #[cfg(feature = "ebpf")]
            Self::Ebpf(source) => source.pull(until, batch).await,
            Self::Host(source, _) => source.pull(until, batch).await,
        }
    }
}
