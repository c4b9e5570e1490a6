//! Names on their way in: a registration is seen in the view only at the next tick, and until then two users must not
//! both get the same name. Also remembers which process stands behind a name, for the watch over its life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::serve::peer::PeerProcess;
use crate::serve::view::View;
use crate::units::{Nanos, PipelineName, Uid};

/// Longer than a registration takes to show in the view; an older claim that never showed is void.
const PENDING: Nanos = Nanos::from_secs(5);

/// Names and who stands behind them; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<HashMap<PipelineName, Claim>>>);

/// Who stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// User.
    pub uid: Uid,
    /// Process.
    pub process: PeerProcess,
    /// When it was made.
    pub at: Nanos,
}

/// Why a name was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another user has it.
    Taken(Uid),
    /// This user has as many as one may.
    TooMany,
}

/// Pipelines of one ordinary user.
pub const PER_USER: usize = 64;
/// Pipelines of all.
pub const IN_ALL: usize = 1024;

impl Claims {
    /// The user a name belongs to, in the view or on its way there.
    pub fn owner(&self, name: &PipelineName, view: &View, now: Nanos) -> Option<Uid> {
        let shown = view.pipelines.iter().find(|p| p.name == *name).map(|p| p.uid);
        shown.or_else(|| self.lock().get(name).filter(|c| c.pending(now)).map(|c| c.uid))
    }

    /// Gives `name` to the claimant, unless it is another user's.
    pub fn claim(&self, name: &PipelineName, claim: Claim, view: &View) -> Result<(), Refused> {
        if let Some(owner) = self.owner(name, view, claim.at).filter(|owner| *owner != claim.uid) {
            return Err(Refused::Taken(owner));
        }
        let mut claims = self.lock();
        claims.retain(|name, c| c.pending(claim.at) || view.pipelines.iter().any(|p| p.name == *name));
        if !claims.contains_key(name) {
            let own = claims.values().filter(|c| c.uid == claim.uid).count();
            if claims.len() >= IN_ALL || (claim.uid != Uid(0) && own >= PER_USER) {
                return Err(Refused::TooMany);
            }
        }
        claims.insert(name.clone(), claim);
        Ok(())
    }

    /// The newest claim to a name.
    pub fn of(&self, name: &PipelineName) -> Option<Claim> {
        self.lock().get(name).copied()
    }

    /// Forgets a name whose process has ended; not if another process has claimed it since.
    pub fn release(&self, name: &PipelineName, process: PeerProcess) {
        let mut claims = self.lock();
        if claims.get(name).is_some_and(|c| c.process == process) {
            claims.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PipelineName, Claim>> {
        // Nothing is left half-done under the lock, so a panic elsewhere does not spoil the table.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    fn pending(&self, now: Nanos) -> bool {
        now.since(self.at) < PENDING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;

    fn claim(uid: u32, pid: u32, at: u64) -> Claim {
        let process = PeerProcess { pid: Pid(pid), start_ticks: 7 };
        Claim { uid: Uid(uid), process, at: Nanos::from_secs(at) }
    }

    fn name(text: &str) -> PipelineName {
        PipelineName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn two_users_cannot_get_one_name_before_the_view_shows_it() {
        let (claims, view) = (Claims::default(), View::default());
        assert_eq!(claims.claim(&name("a"), claim(1000, 1, 1), &view), Ok(()));
        assert_eq!(claims.claim(&name("a"), claim(1001, 2, 2), &view), Err(Refused::Taken(Uid(1000))));
        assert_eq!(
            claims.claim(&name("a"), claim(1001, 2, 60), &view),
            Ok(()),
            "a void claim blocks the name for ever"
        );
    }

    #[test]
    fn one_user_cannot_fill_the_table() {
        let (claims, view) = (Claims::default(), View::default());
        for i in 0..PER_USER {
            assert_eq!(claims.claim(&name(&format!("p{i}")), claim(1000, 1, 1), &view), Ok(()));
        }
        assert_eq!(claims.claim(&name("more"), claim(1000, 1, 1), &view), Err(Refused::TooMany));
        assert_eq!(claims.claim(&name("p0"), claim(1000, 2, 1), &view), Ok(()), "registering again needs no new place");
        assert_eq!(claims.claim(&name("other"), claim(1001, 1, 1), &view), Ok(()));
    }

    #[test]
    fn a_name_taken_over_by_a_new_process_survives_the_end_of_the_old_one() {
        let (claims, view) = (Claims::default(), View::default());
        let (old, new) = (claim(1000, 1, 1), claim(1000, 2, 2));
        claims.claim(&name("a"), old, &view).unwrap();
        claims.claim(&name("a"), new, &view).unwrap();
        claims.release(&name("a"), old.process);
        assert_eq!(claims.of(&name("a")), Some(new));
    }
}
