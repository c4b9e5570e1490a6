//! Every decision as the agent told it while it ran, held against those that come of its recording. Asks twice a second
//! by number, so that none is asked for twice; a decision that was never told is not held against anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::demo::http;

const PERIOD: Duration = Duration::from_millis(500);

/// Decisions by pipeline and number.
pub(super) type Decisions = BTreeMap<(String, u64), Value>;

/// Looks until it is asked what it saw.
pub(super) struct Witness {
    stop: SyncSender<()>,
    thread: JoinHandle<Decisions>,
}

impl Witness {
    pub(super) fn start(socket: PathBuf) -> Result<Self> {
        let (stop, stopped) = sync_channel(1);
        let watch = move || run(&socket, &stopped);
        let thread = std::thread::Builder::new().name("witness".to_owned()).spawn(watch).context("start a thread")?;
        Ok(Self { stop, thread })
    }

    pub(super) fn finish(self) -> Result<Decisions> {
        // One that has ended by itself hears nothing, and needs not to.
        self.stop.send(()).ok();
        self.thread.join().map_err(|_panic| anyhow!("the witness of the decisions died"))
    }
}

fn run(socket: &std::path::Path, stopped: &Receiver<()>) -> Decisions {
    let mut seen = Decisions::new();
    loop {
        let end = stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout);
        // One unanswered question is no loss: decisions are asked for by number.
        look(socket, &mut seen).ok();
        if end {
            return seen;
        }
    }
}

fn look(socket: &std::path::Path, seen: &mut Decisions) -> Result<()> {
    let pipelines = http::get(socket, "/v1/pipelines")?;
    let names = pipelines.as_array().into_iter().flatten().filter_map(|p| p.get("name")?.as_str());
    for name in names {
        let of_name = (name.to_owned(), 0)..=(name.to_owned(), u64::MAX);
        let after = seen.range(of_name).next_back().map(|((_, n), _)| format!("?after={n}")).unwrap_or_default();
        let news = http::get(socket, &format!("/v1/pipelines/{name}/decisions{after}"))?;
        for decision in news.as_array().into_iter().flatten() {
            if let Some(key) = key(decision) {
                seen.insert(key, decision.clone());
            }
        }
    }
    Ok(())
}

fn key(decision: &Value) -> Option<(String, u64)> {
    Some((decision.get("name")?.as_str()?.to_owned(), decision.get("sequence")?.as_u64()?))
}

/// What a replay said to what was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Comparison {
    seen: usize,
    replayed: usize,
    missing: usize,
    different: usize,
    /// The first that is not the same.
    first: Option<String>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, replayed, missing, different, first } = self;
        let word = if *seen > 0 && missing + different == 0 { "holds" } else { "MISSED" };
        write!(
            f,
            "{word}  replay: of {seen} decisions seen, {different} came out otherwise and {missing} not at all \
             ({replayed} in the recording)"
        )?;
        first.as_ref().map_or(Ok(()), |first| write!(f, "; first: {first}"))
    }
}

/// Holds the decisions seen against those replayed, JSON one a line. A decision is told again once its effect has been
/// measured; it was seen in one of its forms.
pub(super) fn compare(seen: &Decisions, replayed: &str) -> Result<Comparison> {
    let mut again: BTreeMap<(String, u64), Vec<Value>> = BTreeMap::new();
    for line in replayed.lines() {
        let decision: Value = serde_json::from_str(line).context("read a replayed decision")?;
        if let Some(key) = key(&decision) {
            again.entry(key).or_default().push(decision);
        }
    }
    let (mut missing, mut different, mut first) = (0, 0, None);
    for (key, decision) in seen {
        match again.get(key) {
            Some(forms) if forms.contains(decision) => continue,
            Some(_) => different += 1,
            None => missing += 1,
        }
        first.get_or_insert_with(|| format!("{} number {}", key.0, key.1));
    }
    Ok(Comparison { seen: seen.len(), replayed: again.len(), missing, different, first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(name: &str, sequence: u64, batch: u64) -> Value {
        serde_json::json!({"name": name, "sequence": sequence, "batch_bytes": batch})
    }

    #[test]
    fn one_decision_that_differs_or_is_missing_is_told_with_its_name() {
        let all = [decision("a", 1, 10), decision("a", 2, 20), decision("b", 1, 30)];
        let seen: Decisions = all.iter().filter_map(|d| Some((key(d)?, d.clone()))).collect();
        let lines = |all: &[Value]| all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        assert!(compare(&seen, &lines(&all)).expect("they are whole").to_string().starts_with("holds"));
        let told_again = [&all[..], &[decision("a", 2, 21)]].concat();
        assert!(compare(&seen, &lines(&told_again)).expect("they are whole").to_string().starts_with("holds"));
        let other = [decision("a", 1, 10), decision("a", 2, 21)];
        let compared = compare(&seen, &lines(&other)).expect("they are whole");
        assert_eq!((compared.missing, compared.different, compared.first.as_deref()), (1, 1, Some("a number 2")));
        let nothing = compare(&Decisions::new(), "").expect("they are whole");
        assert!(nothing.to_string().starts_with("MISSED"), "nothing seen proves nothing");
    }
}
