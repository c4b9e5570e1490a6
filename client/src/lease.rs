//! The lease of settings: its end and the time come in, whose settings are in force comes out. Pure: never reads a clock
//! or a page.
//!
//! Fail static: when the agent falls silent the last settings are held for a while, and only then does the pipeline step
//! back to its own. Nothing jumps at the moment an agent goes away.

use crate::abi::{LeaseTerms, OnExpiry};
use crate::units::Nanos;

/// A lease is renewed at least this often.
const RENEWAL_MAX: Nanos = Nanos::from_millis(1_000);

/// Whose settings are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The pipeline's own: there never was a lease, or lease and hold have run out.
    Own,
    /// The agent's, renewed in time.
    Live,
    /// The agent's last ones, past their lease.
    Held,
}

/// The terms that the pipeline registered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    terms: LeaseTerms,
}

impl Lease {
    /// A lease on these terms.
    pub fn new(terms: LeaseTerms) -> Self {
        Self { terms }
    }

    /// The phase at `now` of settings whose lease ends at `expires`; an end of zero means that there never was a lease.
    pub fn phase(&self, expires: Nanos, now: Nanos) -> Phase {
        if expires == Nanos(0) {
            Phase::Own
        } else if now < expires {
            Phase::Live
        } else if self.terms.on_expiry == OnExpiry::Hold || now < self.hold_end(expires) {
            Phase::Held
        } else {
            Phase::Own
        }
    }

    /// When time alone will change the phase, without a renewal.
    pub fn next_change(&self, expires: Nanos, now: Nanos) -> Option<Nanos> {
        match self.phase(expires, now) {
            Phase::Live => Some(expires),
            Phase::Held if self.terms.on_expiry == OnExpiry::Default => Some(self.hold_end(expires)),
            Phase::Held | Phase::Own => None,
        }
    }

    /// How long a silence is no cause for doubt: two and a half times the span between renewals.
    pub fn patience(&self) -> Nanos {
        let renewal = Nanos(Nanos::from_millis(self.terms.ttl_ms).0 / 3).min(RENEWAL_MAX);
        Nanos(renewal.0 * 5 / 2)
    }

    fn hold_end(&self, expires: Nanos) -> Nanos {
        expires + Nanos::from_millis(self.terms.hold_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease(on_expiry: OnExpiry) -> Lease {
        Lease::new(LeaseTerms { ttl_ms: 3_000, hold_ms: 2_000, on_expiry })
    }

    const fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn settings_are_live_then_held_then_the_pipelines_own() {
        let lease = lease(OnExpiry::Default);
        let end = ms(10_000);
        for (now, phase, next) in [
            (ms(0), Phase::Live, Some(end)),
            (ms(9_999), Phase::Live, Some(end)),
            (end, Phase::Held, Some(ms(12_000))),
            (ms(11_999), Phase::Held, Some(ms(12_000))),
            (ms(12_000), Phase::Own, None),
        ] {
            assert_eq!((lease.phase(end, now), lease.next_change(end, now)), (phase, next), "at {now:?}");
        }
    }

    #[test]
    fn a_renewal_makes_settings_live_again_at_any_time() {
        let lease = lease(OnExpiry::Default);
        for now in [ms(9_000), ms(11_000), ms(99_000)] {
            assert_eq!(lease.phase(now + ms(1), now), Phase::Live);
        }
    }

    #[test]
    fn who_asked_to_hold_holds_for_ever() {
        let lease = lease(OnExpiry::Hold);
        assert_eq!(lease.phase(ms(1), Nanos(u64::MAX)), Phase::Held);
        assert_eq!(lease.next_change(ms(1), ms(2)), None);
    }

    #[test]
    fn a_page_that_never_had_a_lease_is_not_in_force() {
        assert_eq!(lease(OnExpiry::Hold).phase(Nanos(0), Nanos(0)), Phase::Own);
        assert_eq!(lease(OnExpiry::Default).phase(Nanos(0), Nanos(0)), Phase::Own);
    }

    #[test]
    fn doubt_comes_after_renewals_were_due_and_before_the_lease_ends() {
        for ttl_ms in [300, 3_000, 10_000] {
            let patience = Lease::new(LeaseTerms { ttl_ms, ..LeaseTerms::default() }).patience();
            assert!(patience < ms(ttl_ms) && patience >= ms(ttl_ms.min(3_000) * 2 / 3), "{patience:?} of {ttl_ms} ms");
        }
    }

    proptest! {
        #[test]
        fn without_a_renewal_the_phase_only_ever_falls(
            expires in 1_u64..1 << 50, a in any::<u64>(), b in any::<u64>(), ttl_ms in 1_u64..1 << 40,
            hold_ms in any::<u64>(),
        ) {
            let lease = Lease::new(LeaseTerms { ttl_ms, hold_ms, on_expiry: OnExpiry::Default });
            let rank = |p| match p { Phase::Live => 2, Phase::Held => 1, Phase::Own => 0 };
            let (early, late) = (a.min(b), a.max(b));
            let phase_at = |t| rank(lease.phase(Nanos(expires), Nanos(t)));
            prop_assert!(phase_at(early) >= phase_at(late));
        }

        #[test]
        fn the_phase_changes_when_it_says_and_not_before(expires in 1_u64..1 << 50, now in 0_u64..1 << 51) {
            let lease = lease(OnExpiry::Default);
            let (expires, now) = (Nanos(expires), Nanos(now));
            if let Some(next) = lease.next_change(expires, now) {
                prop_assert_eq!(lease.phase(expires, Nanos(next.0 - 1)), lease.phase(expires, now));
                prop_assert_ne!(lease.phase(expires, next), lease.phase(expires, now));
            }
        }
    }
}
