//! What several tests of this crate need: waiting for something that another thread does.

use std::thread;
use std::time::Duration;

use tidegate_client::{Nanos, clock};

/// Asks until it holds, or fails.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = clock::monotonic();
    while !holds() {
        assert!(clock::monotonic() - begin < Nanos::from_millis(20_000), "waited in vain until {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
