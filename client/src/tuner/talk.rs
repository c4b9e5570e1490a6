//! The thread that talks to the agent: registers, opens the page, watches over the lease, begins again when it lapses.
//! Never touches the pipeline; what it finds goes into the shared state and a raised epoch.

use std::sync::{Arc, PoisonError};

use super::{Contact, Ended, Shared, ValueOrder};
use crate::clock;
use crate::contact::register;
use crate::lease::Phase;
use crate::page::PageReader;
use crate::units::Nanos;

const BACKOFF_MIN: Nanos = Nanos::from_millis(50);
const BACKOFF_MAX: Nanos = Nanos::from_millis(1_000);
/// Longest sleep: a wait is counted on a clock that stops in suspend, a lease on one that does not.
const SLEEP_MAX: Nanos = Nanos::from_millis(1_000);

/// When to talk next, in pure terms of the times seen so far.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Nanos,
    backoff: Nanos,
    next_talk: Nanos,
    expires: Nanos,
}

impl Watch {
    /// Wants to talk at once.
    pub(super) fn new(patience: Nanos) -> Self {
        Self { patience, backoff: BACKOFF_MIN, next_talk: Nanos(0), expires: Nanos(0) }
    }

    /// Notes the lease on the page; returns whether to talk now.
    pub(super) fn should_talk(&mut self, expires: Nanos, now: Nanos) -> bool {
        if expires != self.expires {
            self.expires = expires;
            self.next_talk = self.next_talk.max(now + self.patience);
        }
        now >= self.next_talk
    }

    /// Notes how a talk went.
    pub(super) fn talked(&mut self, went: Went, now: Nanos) {
        match went {
            Went::Well => {
                self.backoff = BACKOFF_MIN;
                self.next_talk = now + self.patience;
            }
            Went::Badly => {
                self.next_talk = now + self.backoff;
                self.backoff = Nanos(self.backoff.0 * 2).min(BACKOFF_MAX);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    Well,
    Badly,
}

/// Runs until the last handle is gone.
pub(super) fn run(shared: &Shared) {
    let mut watch = Watch::new(shared.lease.patience());
    let mut phase = Phase::Own;
    loop {
        let expires = lease_on_page(shared);
        if watch.should_talk(expires, clock::boottime()) {
            let went = talk(shared);
            watch.talked(went, clock::boottime());
        }
        let (expires, now) = (lease_on_page(shared), clock::boottime());
        let phase_now = shared.lease.phase(expires, now);
        if phase_now != phase {
            phase = phase_now;
            shared.raise_epoch();
        }
        let next = shared.lease.next_change(expires, now).map_or(watch.next_talk, |c| c.min(watch.next_talk));
        if !sleep(shared, (next - now).min(SLEEP_MAX)) {
            return;
        }
    }
}

fn lease_on_page(shared: &Shared) -> Nanos {
    let page = shared.lock().page.clone();
    Nanos(page.and_then(|(page, _)| page.read()).unwrap_or_default().expires_boottime_ns)
}

/// One registration. The state lock is not held meanwhile: a status is had at any time.
fn talk(shared: &Shared) -> Went {
    {
        let mut talk = shared.lock();
        if matches!(talk.contact, Contact::Registered) {
            talk.contact = Contact::Silent;
        }
    }
    let (contact, page) = match register(&shared.socket, &shared.name, &shared.registration) {
        Err(error) => (Contact::Failed(Arc::new(error)), None),
        Ok(reply) => match (ValueOrder::from_names(&reply.values), PageReader::open(&reply.settings_page)) {
            (None, _) => (Contact::MissingKnob(reply.values), None),
            (_, Err(error)) => (Contact::BadPage(Arc::new(error)), None),
            (Some(order), Ok(page)) => (Contact::Registered, Some((page, order))),
        },
    };
    let mut talk = shared.lock();
    talk.contact = contact;
    let Some((page, order)) = page else { return Went::Badly };
    // A page that is the same file stays mapped where it is: the readers need not change over.
    let known = talk.page.as_ref().is_some_and(|(old, old_order)| old.same_file(&page) && *old_order == order);
    if !known {
        talk.page = Some((Arc::new(page), order));
        drop(talk);
        shared.raise_epoch();
    }
    Went::Well
}

/// Sleeps; `false` when the last handle is gone.
fn sleep(shared: &Shared, span: Nanos) -> bool {
    let talk = shared.lock();
    let (talk, _) = shared
        .wake
        .wait_timeout_while(talk, span.into(), |t| t.ended == Ended::No)
        .unwrap_or_else(PoisonError::into_inner);
    talk.ended == Ended::No
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    #[test]
    fn attempts_come_at_growing_gaps_of_a_second_at_most_for_ever() {
        let mut watch = Watch::new(ms(2_500));
        let mut now = ms(0);
        let mut gaps = Vec::new();
        for _ in 0..20 {
            assert!(watch.should_talk(Nanos(0), now));
            watch.talked(Went::Badly, now);
            gaps.push((watch.next_talk - now).0 / 1_000_000);
            now = watch.next_talk;
        }
        assert_eq!(gaps[..6], [50, 100, 200, 400, 800, 1_000]);
        assert!(gaps[6..].iter().all(|g| *g == 1_000));
    }

    #[test]
    fn a_lease_that_is_renewed_is_left_alone_and_a_silent_one_is_not() {
        let mut watch = Watch::new(ms(2_500));
        watch.talked(Went::Well, ms(0));
        for second in 1..60 {
            assert!(!watch.should_talk(ms(10_000 + 1_000 * second), ms(1_000 * second)), "second {second}");
        }
        let end = ms(10_000 + 59_000);
        assert!(!watch.should_talk(end, ms(61_499)));
        assert!(watch.should_talk(end, ms(61_500)), "long before the lease ends at 69 s");
    }

    #[test]
    fn after_a_success_a_failure_is_retried_quickly_again() {
        let mut watch = Watch::new(ms(2_500));
        for _ in 0..9 {
            watch.talked(Went::Badly, ms(0));
        }
        watch.talked(Went::Well, ms(0));
        watch.talked(Went::Badly, ms(0));
        assert_eq!(watch.next_talk, BACKOFF_MIN);
    }
}
