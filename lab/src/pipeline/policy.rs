//! What a pipeline is run by: the words of a command line in, a policy and its constants out. Never makes a rule itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tidegate_client::abi;
use tidegate_client::rule::Settings;
use tidegate_client::{Bytes, Nanos};

use crate::time::{parse_bytes, parse_span};

/// Records of a batch as shipped clients have it.
pub(crate) const DEFAULT_RECORDS: u64 = 100;
/// Their flush interval.
pub(crate) const DEFAULT_INTERVAL: Nanos = Nanos::from_millis(50);
/// The fixed buffer that the promises are measured against.
pub(crate) const FIXED: Settings = Settings { batch: Bytes::from_kib(256), interval: Nanos::from_millis(250) };

/// When a pipeline flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Policy {
    /// 100 records or 50 ms, a full batch exactly: no panic, no drain.
    Default,
    /// 256 KiB or 250 ms, likewise.
    Fixed,
    /// The client's rule on one constant.
    Static(Constant),
    /// The client's rule on constants that are switched at known instants.
    Schedule,
    /// What is queued, when the sink is free.
    Greedy,
    /// The client's rule on its own settings; no agent.
    Batcher,
    /// The client's rule on its own settings and by the waiting accrued; no agent.
    L0,
    /// The agent's three regimes.
    Regime,
    /// The agent's model.
    Model,
}

/// A batch size and a flush interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Constant {
    /// Batch size, bytes.
    pub(crate) batch_bytes: u64,
    /// Flush interval, microseconds.
    pub(crate) interval_us: u64,
}

impl Constant {
    pub(crate) fn settings(self) -> Settings {
        Settings { batch: Bytes(self.batch_bytes), interval: Nanos::from_micros(self.interval_us) }
    }
}

impl Policy {
    /// How the agent is to find settings; `None` for those that need no agent.
    pub(crate) fn of_agent(self) -> Option<abi::Policy> {
        match self {
            Self::Regime => Some(abi::Policy::Regime),
            Self::Model => Some(abi::Policy::Model),
            _ => None,
        }
    }
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.batch_bytes {
            bytes if bytes % 1024 == 0 => write!(f, "{}KiB/", bytes / 1024)?,
            bytes => write!(f, "{bytes}B/")?,
        }
        match self.interval_us {
            us if us % 1000 == 0 => write!(f, "{}ms", us / 1000),
            us => write!(f, "{us}us"),
        }
    }
}

impl FromStr for Constant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (batch, interval) =
            text.split_once('/').ok_or_else(|| format!("constant {text:?}: want BATCH/INTERVAL, like 64KiB/8ms"))?;
        let (batch_bytes, interval_us) = (parse_bytes(batch)?, parse_span(interval)?.as_micros());
        if batch_bytes == 0 || interval_us == 0 {
            return Err(format!("constant {text:?}: neither may be 0"));
        }
        Ok(Self { batch_bytes, interval_us })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Fixed => "fixed",
            Self::Static(constant) => return write!(f, "static:{constant}"),
            Self::Schedule => "schedule",
            Self::Greedy => "greedy",
            Self::Batcher => "batcher",
            Self::L0 => "l0",
            Self::Regime => "regime",
            Self::Model => "model",
        })
    }
}

impl FromStr for Policy {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "default" => Self::Default,
            "fixed" => Self::Fixed,
            "schedule" => Self::Schedule,
            "greedy" => Self::Greedy,
            "batcher" => Self::Batcher,
            "l0" => Self::L0,
            "regime" => Self::Regime,
            "model" | "tuned" => Self::Model,
            other => match other.strip_prefix("static:") {
                Some(constant) => Self::Static(constant.parse()?),
                None => {
                    return Err(format!(
                        "policy {text:?}: want default, fixed, static:BATCH/INTERVAL, schedule, greedy, batcher, l0, \
                         regime or model"
                    ));
                }
            },
        })
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.to_string()
    }
}

impl TryFrom<String> for Policy {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for word in [
            "default",
            "fixed",
            "static:64KiB/8ms",
            "static:700B/1500us",
            "schedule",
            "greedy",
            "batcher",
            "l0",
            "regime",
        ] {
            assert_eq!(word.parse::<Policy>().map(|p| p.to_string()), Ok(word.to_owned()));
        }
        assert_eq!("tuned".parse(), Ok(Policy::Model));
        for bad in ["", "fix", "static", "static:64KiB", "static:0/8ms", "static:64KiB/0", "static:x/8ms"] {
            assert!(bad.parse::<Policy>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn only_the_agents_policies_need_an_agent() {
        assert_eq!(Policy::Model.of_agent(), Some(abi::Policy::Model));
        assert_eq!(Policy::Regime.of_agent(), Some(abi::Policy::Regime));
        assert_eq!(Policy::Greedy.of_agent(), None);
    }
}
