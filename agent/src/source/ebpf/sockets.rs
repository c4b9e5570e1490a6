//! Residency of sockets: a walk over descriptors and the kernel's counters in, a row for each socket out, the last one when
//! it has been closed.

use std::collections::{BTreeSet, HashMap};

use agent_common::{SocketRow, SocketSeen, Wire};

use super::EbpfSource;
use crate::event::{RawBatch, encode};
use crate::units::{Nanos, Pid};

impl EbpfSource {
    /// Counters of sockets that nobody watches: without them a later watch begins anew, and what came and went between
    /// the two is never taken for read just now.
    pub(super) fn forget_sockets(&mut self) {
        let cookies: Vec<u64> = self.maps.sockets.keys().filter_map(Result::ok).collect();
        for cookie in cookies {
            if let Err(cause) = self.maps.sockets.remove(&cookie) {
                tracing::debug!(%cause, cookie, "forget a socket");
            }
        }
        self.sent_sockets.clear();
    }

    pub(super) fn snapshot_sockets(&mut self, now: Nanos, batch: &mut RawBatch, seen: &mut BTreeSet<Pid>) {
        // Before the walk: what was known by then and is not found by it has been closed.
        let known: Vec<u64> = self.maps.sockets.keys().filter_map(Result::ok).collect();
        let bytes = match self.probes.walk_descriptors() {
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
            if let Ok(stats) = self.maps.sockets.get(cookie, 0) {
                encode::socket(batch, now, &SocketRow { seen: *socket, stats });
            }
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
            let socket = SocketSeen { fd: -1, receive_queue: 0, send_queue: 0, ..last };
            encode::socket(batch, now, &SocketRow { seen: socket, stats });
        }
        if let Err(cause) = self.maps.sockets.remove(&cookie) {
            tracing::debug!(%cause, cookie, "forget a closed socket");
        }
    }
}
