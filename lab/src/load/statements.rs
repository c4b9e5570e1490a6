//! Statements at PostgreSQL, one for each record of the schedule: whichever connection is free takes the next, waits until
//! it is due and executes it. A statement that finds no connection free counts its wait, as in any open loop.

use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use postgres::{Client, Statement};
use tidegate_client::{Nanos, clock};

use super::live::Live;
use super::{Outcome, Plan};
use crate::servers::contact::PostgresAt;
use crate::time::sleep_until;

const CONNECT_PATIENCE: Nanos = Nanos::from_millis(5_000);
const LOOK: Nanos = Nanos::from_millis(200);

/// A connection with its statement prepared.
pub(super) struct Ready {
    client: Client,
    statement: Statement,
}

/// Opens every connection and prepares the statement on it, before the load begins.
pub(super) fn connect(at: &PostgresAt, sql: &str, connections: u16) -> Result<Vec<Ready>> {
    let ready = |_| {
        let mut client = at.connect_patiently(CONNECT_PATIENCE)?;
        let statement = client.prepare(sql).with_context(|| format!("prepare {sql:?}"))?;
        Ok(Ready { client, statement })
    };
    (0..connections).map(ready).collect()
}

/// What the connections share.
struct Shared<'a> {
    outcome: Outcome,
    live: Live<'a>,
    /// Connections that still work.
    working: usize,
    failure: Option<anyhow::Error>,
}

/// Executes and measures.
pub(super) fn run<'a>(plan: &'a Plan<'a>, ready: Vec<Ready>, live: Live<'a>, outcome: Outcome) -> Result<Outcome> {
    let walk = Mutex::new(plan.schedule.walk());
    let shared = Mutex::new(Shared { outcome, live, working: ready.len(), failure: None });
    thread::scope(|scope| {
        for (number, connection) in ready.into_iter().enumerate() {
            let (walk, shared) = (&walk, &shared);
            let work = move || {
                let result = execute(plan, connection, walk, shared);
                let mut shared = lock(shared);
                shared.working -= 1;
                if let Err(error) = result {
                    shared.failure.get_or_insert(error);
                }
            };
            let started = thread::Builder::new().name(format!("lab-sql-{number}")).spawn_scoped(scope, work);
            if let Err(error) = started {
                let mut shared = lock(shared);
                shared.working -= 1;
                shared.failure.get_or_insert(anyhow::Error::new(error).context("start a thread"));
            }
        }
        loop {
            sleep_until(clock::monotonic() + LOOK);
            let mut shared = lock(&shared);
            let acknowledged = shared.outcome.acknowledged;
            shared.live.look(clock::monotonic(), acknowledged);
            if shared.working == 0 {
                break;
            }
        }
    });
    let Shared { outcome, live, failure, .. } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    live.end();
    failure.map_or(Ok(outcome), Err)
}

fn execute(
    plan: &Plan<'_>,
    mut connection: Ready,
    walk: &Mutex<impl Iterator<Item = super::schedule::Due>>,
    shared: &Mutex<Shared<'_>>,
) -> Result<()> {
    loop {
        let next = lock(walk).next();
        let Some(next) = next else { return Ok(()) };
        let due = plan.begin + next.at;
        sleep_until(due);
        let begun = clock::monotonic();
        if begun >= plan.deadline || lock(shared).failure.is_some() {
            return Ok(());
        }
        connection.client.execute(&connection.statement, &[]).context("execute the statement")?;
        let latency = clock::monotonic() - due;
        let mut shared = lock(shared);
        let Shared { outcome, live, .. } = &mut *shared;
        outcome.sent += 1;
        outcome.acknowledged += 1;
        outcome.worst_send_delay = outcome.worst_send_delay.max(begun - due);
        outcome.latencies.record(plan.schedule, next.slice, latency)?;
        live.acknowledged(latency);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
