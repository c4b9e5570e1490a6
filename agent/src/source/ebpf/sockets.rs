//! Residency of sockets: a walk over descriptors and the kernel's counters in, a row for each socket out, the last one when
//! it has been closed.

use std::collections::{BTreeSet, HashMap};

use agent_common::{SocketRow, SocketSeen, SocketStats, Wire};

use super::EbpfSource;
use crate::event::{RawBatch, encode};
use crate::kernel::{LoadError, Visit};
use crate::source::{Offspring, Wanted};
use crate::units::{Nanos, Pid};

impl EbpfSource {
    pub(super) fn walks_descriptors(&self) -> bool {
        self.wanted.sockets.is_some() || !self.wanted.queues.is_empty()
    }

    /// What the descriptors of those whose sockets are wanted hold now, as the kernel side wrote it.
    pub(super) fn walk_descriptors(&mut self) -> Result<Vec<u8>, LoadError> {
        let Wanted { sockets, queues, offspring, .. } = &self.wanted;
        let processes: BTreeSet<Pid> = sockets.iter().flatten().chain(queues).copied().collect();
        match offspring {
            Offspring::Ignored => self.probes.walk_descriptors(Visit::Processes(&processes)),
            // The kernel side alone knows whom else it watches by now.
            Offspring::Watched => self.probes.walk_descriptors(Visit::Host),
        }
    }

    /// Counters of sockets that nobody follows any more: without them a later watch begins anew, and what came and went
    /// between the two is never taken for read just now.
    pub(super) fn forget_sockets(&mut self, wanted: &Wanted) {
        if (&self.wanted.sockets, &self.wanted.queues) == (&wanted.sockets, &wanted.queues) {
            return;
        }
        let is_followed = |pid| wanted.sockets.as_ref().is_some_and(|pids| pids.contains(&Pid(pid)));
        let known: Vec<u64> = self.maps.sockets.keys().filter_map(Result::ok).collect();
        for cookie in known {
            if self.maps.sockets.get(&cookie, 0).is_ok_and(|stats| is_followed(stats.pid)) {
                continue;
            }
            if let Err(cause) = self.maps.sockets.remove(&cookie) {
                tracing::debug!(%cause, cookie, "forget a socket");
            }
        }
        // A walk that leaves them out does not say that they are closed.
        self.sent_sockets.retain(|_, seen| is_followed(seen.pid) || wanted.queues.contains(&Pid(seen.pid)));
    }

    pub(super) fn snapshot_sockets(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        // Before the walk: what was known by then and is not found by it has been closed.
        let known: Vec<u64> = self.maps.sockets.keys().filter_map(Result::ok).collect();
        let bytes = match self.walk_descriptors() {
            Ok(bytes) => bytes,
            Err(error) => {
                if !std::mem::replace(&mut self.walk_failed, true) {
                    tracing::warn!(%error, "sockets are not seen");
                }
                return;
            }
        };
        self.walk_failed = false;
        let mut open: HashMap<u64, SocketSeen> = HashMap::new();
        let mut rest = &bytes[..];
        while let Some((socket, after)) = SocketSeen::from_prefix(rest) {
            rest = after;
            seen.insert(Pid(socket.pid));
            // A socket may have several descriptors; the lowest speaks for it.
            open.entry(socket.cookie).and_modify(|s| *s = if socket.fd < s.fd { socket } else { *s }).or_insert(socket);
        }
        for (cookie, socket) in &open {
            match self.maps.sockets.get(cookie, 0) {
                Ok(stats) => encode::socket(batch, now, &SocketRow { seen: *socket, stats }),
                Err(_) if self.wanted.queues.contains(&Pid(socket.pid)) => {
                    encode::socket(batch, now, &SocketRow { seen: *socket, stats: SocketStats::UNFOLLOWED });
                }
                Err(_) => {} // There was no room for its counters; the kernel side has counted that.
            }
        }
        for last in self.sent_sockets.values().filter(|s| !open.contains_key(&s.cookie) && !known.contains(&s.cookie)) {
            encode::socket(batch, now, &SocketRow { seen: closed(*last), stats: SocketStats::UNFOLLOWED });
        }
        for cookie in known.into_iter().filter(|cookie| !open.contains_key(cookie)) {
            self.tell_closed(now, cookie, batch, seen);
        }
        self.sent_sockets = open;
    }

    /// A socket that has been closed is told once more, with its last counts, and then makes room. One that lived for less
    /// than a tick was never found by a walk: its ends are not known, its bytes are.
    fn tell_closed(&mut self, now: Nanos, cookie: u64, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        if let Ok(stats) = self.maps.sockets.get(&cookie, 0) {
            let unfound = SocketSeen {
                cookie,
                pid: stats.pid,
                kind: u16::try_from(stats.kind).unwrap_or_default(),
                ..SocketSeen::ZERO
            };
            let last = self.sent_sockets.get(&cookie).copied().unwrap_or(unfound);
            seen.insert(Pid(last.pid));
            encode::socket(batch, now, &SocketRow { seen: closed(last), stats });
        }
        if let Err(cause) = self.maps.sockets.remove(&cookie) {
            tracing::debug!(%cause, cookie, "forget a closed socket");
        }
    }
}

fn closed(last: SocketSeen) -> SocketSeen {
    SocketSeen { fd: -1, receive_queue: 0, send_queue: 0, ..last }
}
