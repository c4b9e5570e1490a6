//! Places for those who wait: long polls and event streams. A place is taken for as long as somebody waits, and there are
//! only so many of them; who finds none is told to come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::serve::peer::Role;
use crate::serve::problem::Refusal;

/// Places in all.
pub const WATCHERS: usize = 64;
/// Of those, kept free for root: others cannot keep the operator from watching.
pub const KEPT_FOR_ROOT: usize = 8;

/// The places; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<AtomicUsize>);

/// One place, given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Watchers {
    /// Takes a place.
    pub fn take(&self, role: Role) -> Result<Place, Refusal> {
        let places = if role == Role::Root { WATCHERS } else { WATCHERS - KEPT_FOR_ROOT };
        let taken =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < places).then_some(taken + 1));
        if taken.is_ok() {
            return Ok(Place(Arc::clone(&self.0)));
        }
        let detail = format!("all {places} places for watchers are taken");
        Err(Refusal::unavailable("no-watcher-free", detail, "try again in a second, or ask without waiting"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_given_back_and_a_few_are_roots() {
        let watchers = Watchers::default();
        let mut held: Vec<Place> = (0..100).map_while(|_| watchers.take(Role::Owner).ok()).collect();
        assert_eq!(held.len(), 56);
        let refusal = watchers.take(Role::Owner).expect_err("no place is free");
        assert_eq!((refusal.status().as_u16(), refusal.retry_after()), (503, Some(1)));
        held.extend((0..100).map_while(|_| watchers.take(Role::Root).ok()));
        assert_eq!(held.len(), 64);
        drop(held);
        assert!(watchers.take(Role::Owner).is_ok(), "places were not given back");
    }
}
