//! Diagnostics through aya-log, in builds with the feature `debug-log` only: the seldom paths say that they were taken.
//! Never on a path that a sample, a call or a message takes.

/// Logs, where the feature is on; costs nothing where it is off.
macro_rules! diagnose {
    ($ctx:expr, $($text:tt)+) => {
        #[cfg(feature = "debug-log")]
        aya_log_ebpf::debug!($ctx, $($text)+);
    };
}

pub(crate) use diagnose;
