//! Residency: byte-weighted waiting in receive queues in, its mean out. The application's own timers cannot see it.
//!
//! Waiting summed over bytes and divided by bytes (Little's law per byte), not a mean over reads: one read of a megabyte
//! that waited must not count like one of a byte that did not.

use crate::aggregate::rows::SocketTotals;
use crate::signal::quotient::Quotient;

/// Follows the residency of a pipeline's sockets.
#[derive(Debug)]
pub struct ResidencyTracker {
    byte_us: Quotient,
}

impl Default for ResidencyTracker {
    fn default() -> Self {
        Self { byte_us: Quotient::over(64 << 10, 10) }
    }
}

impl ResidencyTracker {
    /// Takes in the sockets of a tick, if rows came.
    pub fn observe(&mut self, sockets: Option<&SocketTotals>) {
        match sockets {
            Some(sockets) if sockets.is_followed => self.byte_us.push(sockets.byte_us, sockets.measured_bytes),
            // What they waited then is not what they wait.
            Some(_) => self.byte_us.forget(),
            None => {}
        }
    }

    /// Mean residency, ms.
    pub fn mean_ms(&self) -> Option<f64> {
        self.byte_us.value().map(|us| us / 1e3)
    }
}
