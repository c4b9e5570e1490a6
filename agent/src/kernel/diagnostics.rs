//! What the probes say of themselves: handed on to the log in builds with the feature `debug-log`, nothing elsewhere.

use aya::Ebpf;

#[cfg(feature = "debug-log")]
pub(super) struct Diagnostics(Option<aya_log::EbpfLogger<&'static dyn log::Log>>);

#[cfg(feature = "debug-log")]
impl Diagnostics {
    pub(super) fn of(ebpf: &mut Ebpf) -> Self {
        let logger = aya_log::EbpfLogger::init(ebpf);
        Self(logger.inspect_err(|cause| tracing::warn!(%cause, "the probes cannot log")).ok())
    }

    pub(super) fn hear(&mut self) {
        if let Some(logger) = &mut self.0 {
            logger.flush();
        }
    }
}

#[cfg(not(feature = "debug-log"))]
pub(super) struct Diagnostics;

#[cfg(not(feature = "debug-log"))]
#[expect(clippy::unused_self, reason = "the twin of what the feature gives")]
impl Diagnostics {
    pub(super) fn of(_ebpf: &mut Ebpf) -> Self {
        Self
    }

    pub(super) fn hear(&mut self) {}
}

impl std::fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Diagnostics")
    }
}
