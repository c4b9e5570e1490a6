//! Who is at the other end of a connection: credentials of the socket in, a role out. Looked up once per connection.
//!
//! The process is remembered with its start time, so that a process that later gets the same number inherits nothing.

use procfs::process::Process;
use tokio::net::UnixStream;

use crate::serve::groups::{Granted, Grants, Groups};
use crate::units::{Pid, Uid};

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: Uid,
    /// Process; absent when it cannot be seen from here or has ended already.
    pub process: Option<PeerProcess>,
    /// What his groups let him do.
    pub grants: Grants,
}

/// A process, told apart from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProcess {
    /// Number.
    pub pid: Pid,
    /// Start time, clock ticks since boot.
    pub start_ticks: u64,
}

/// What somebody is to a pipeline, or to the agent as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Root, or the user who runs the agent: that user could stop and debug it anyway.
    Root,
    /// Owner of the pipeline in question.
    Owner,
    /// Anybody else.
    Other,
}

/// How far somebody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// What belongs to others too.
    All,
    /// His own.
    Own,
}

impl Peer {
    /// From the credentials the kernel noted when the peer connected.
    pub fn of(stream: &UnixStream, groups: Groups) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        let (uid, process) = (Uid(credentials.uid()), pid.and_then(|pid| PeerProcess::running(Pid(pid))));
        Ok(Self { uid, process, grants: groups.grants(uid, process) })
    }

    /// Whose profiles and pipelines he may see.
    pub fn sight(self, role: Role) -> Sight {
        if role == Role::Root || self.grants.read == Granted::Yes { Sight::All } else { Sight::Own }
    }

    /// What this peer is to something that `owner` owns, for an agent that runs as `agent`.
    pub fn role(self, agent: Uid, owner: Option<Uid>) -> Role {
        if self.uid == Uid(0) || self.uid == agent {
            Role::Root
        } else if owner == Some(self.uid) {
            Role::Owner
        } else {
            Role::Other
        }
    }
}

impl PeerProcess {
    /// The process that has this number now.
    pub fn running(pid: Pid) -> Option<Self> {
        let stat = Process::new(i32::try_from(pid.0).ok()?).and_then(|p| p.stat()).ok()?;
        Some(Self { pid, start_ticks: stat.starttime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_agents_own_user_rule_and_an_owner_owns_only_his_own() {
        let peer = |uid| Peer { uid: Uid(uid), process: None, grants: Grants::NONE };
        let agent = Uid(990);
        assert_eq!(peer(0).role(agent, Some(Uid(1000))), Role::Root);
        assert_eq!(peer(990).role(agent, None), Role::Root);
        assert_eq!(peer(1000).role(agent, Some(Uid(1000))), Role::Owner);
        assert_eq!(peer(1001).role(agent, Some(Uid(1000))), Role::Other);
        assert_eq!(peer(1000).role(agent, None), Role::Other);
    }

    #[test]
    fn a_process_is_known_by_number_and_start_time() {
        let me = PeerProcess::running(Pid(std::process::id())).expect("this process runs");
        assert!(me.start_ticks > 0);
        assert_eq!(PeerProcess::running(Pid(u32::MAX)), None);
    }
}
