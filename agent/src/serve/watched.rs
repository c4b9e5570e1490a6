//! Processes that are watched without having been changed: who asks and for which process in, that process or a refusal
//! out. Root may watch any, anybody else his own.

use axum::http::StatusCode;
use procfs::process::Process;
use tidegate_client::abi::{Mode, Registration, WatchedProcess};

use crate::serve::peer::{Peer, PeerProcess, Role};
use crate::serve::problem::Refusal;
use crate::serve::view::PipelineView;
use crate::units::{Pid, Uid};

/// Largest event that can be told, bytes.
const EVENT_MAX: u64 = 1 << 30;

/// Refuses a watch that asks for more than looking.
pub fn check(registration: &Registration) -> Result<(), Refusal> {
    let Some(WatchedProcess { pid: _, event_bytes }) = registration.watch else { return Ok(()) };
    let refused = |detail: String, fix: &str, pointer: &str| {
        Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "watch-only", detail, fix).at(pointer))
    };
    if registration.mode != Mode::Observe {
        let detail = "a process that is only watched takes no settings".to_owned();
        return refused(detail, "leave the mode out, or say \"observe\"", "/mode");
    }
    if registration.report.is_some() {
        let detail = "a process that is only watched writes no report page".to_owned();
        return refused(detail, "leave `report` out, or register from the process itself without `watch`", "/report");
    }
    if let Some(bytes) = event_bytes.filter(|bytes| !(1..=EVENT_MAX).contains(bytes)) {
        let detail = format!("an event of {bytes} bytes, want 1 to {EVENT_MAX}");
        return refused(detail, "say the size of an event as it comes in, or leave it out", "/watch/event_bytes");
    }
    Ok(())
}

/// The process to watch, if `peer` may.
pub fn process(watch: &WatchedProcess, peer: &Peer, role: Role) -> Result<PeerProcess, Refusal> {
    let none = || {
        let detail = format!("there is no process {}", watch.pid);
        Refusal::not_found("no-process", detail, "`ps -e` lists the processes of this host").at("/watch/pid")
    };
    let process = PeerProcess::running(Pid(watch.pid)).ok_or_else(none)?;
    let owner = owner(process.pid);
    // The number may have passed on while the owner was looked up.
    if PeerProcess::running(process.pid) != Some(process) {
        return Err(none());
    }
    if role != Role::Root && owner != Some(peer.uid) {
        let detail = format!("process {} is not of user {} alone", watch.pid, peer.uid.0);
        return Err(Refusal::forbidden("not-your-process", detail, "ask root to watch it").at("/watch/pid"));
    }
    Ok(process)
}

/// Refuses to set what a process that is only watched would never read.
pub fn settable(pipeline: &PipelineView) -> Result<(), Refusal> {
    if pipeline.registration.watch.is_none() {
        return Ok(());
    }
    let detail = format!("{} is only watched: nothing that is set here reaches it", pipeline.name);
    let fix = "set its own options by hand; `tidegate tune why` says what they should be";
    Err(Refusal::new(StatusCode::CONFLICT, "watch-only", detail, fix))
}

/// The user whom all four user ids of a process name; none where they differ, and when it has gone.
fn owner(pid: Pid) -> Option<Uid> {
    let status = Process::new(i32::try_from(pid.0).ok()?).and_then(|process| process.status()).ok()?;
    let ids = [status.ruid, status.euid, status.suid, status.fuid];
    ids.iter().all(|id| *id == status.ruid).then_some(Uid(status.ruid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::groups::Grants;

    fn peer(uid: u32) -> Peer {
        Peer { uid: Uid(uid), process: None, grants: Grants::NONE }
    }

    #[test]
    fn root_watches_any_process_and_a_user_only_his_own() {
        let me = WatchedProcess { pid: std::process::id(), event_bytes: None };
        let own = rustix::process::geteuid().as_raw();
        let process = process(&me, &peer(own), Role::Other).expect("it is this user's own");
        assert_eq!(Some(process), PeerProcess::running(Pid(me.pid)));
        assert!(super::process(&me, &peer(own + 1), Role::Root).is_ok());
        let refusal = super::process(&me, &peer(own + 1), Role::Other).expect_err("it is somebody else's");
        assert_eq!((refusal.status(), refusal.code()), (StatusCode::FORBIDDEN, "not-your-process"));
        let gone = WatchedProcess { pid: u32::MAX, ..me };
        assert_eq!(super::process(&gone, &peer(0), Role::Root).expect_err("nobody has it").code(), "no-process");
    }

    #[test]
    fn a_watch_asks_for_nothing_but_looking() {
        let of = |json: &str| {
            let knobs = r#""knobs": {"batch_bytes": {"min": 1, "max": 2, "default": 1},
                "flush_interval_us": {"min": 1, "max": 2, "default": 1}}"#;
            check(&serde_json::from_str(&format!("{{{knobs}, {json}}}")).expect("a registration"))
        };
        assert!(of(r#""watch": {"pid": 1, "event_bytes": 512}"#).is_ok());
        assert!(of(r#""mode": "on""#).is_ok(), "whoever registers himself may ask for more");
        let pointers = [
            (r#""watch": {"pid": 1}, "mode": "on""#, "/mode"),
            (r#""watch": {"pid": 1}, "mode": "canary""#, "/mode"),
            (r#""watch": {"pid": 1}, "report": "/r""#, "/report"),
            (r#""watch": {"pid": 1, "event_bytes": 0}"#, "/watch/event_bytes"),
        ];
        for (json, pointer) in pointers {
            assert_eq!(of(json).expect_err(json).pointer(), Some(pointer), "{json}");
        }
    }
}
