//! What became of the looking up: plain counters, for metrics and health.

use super::wire::Confinement;

/// Why a file was not read. Each is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is no regular file.
    NotRegular,
    /// It is longer than is read.
    TooLong,
    /// It belongs to somebody who has no say over the process.
    Foreign,
    /// It is a link where none may be.
    Link,
    /// It has been replaced since it was mapped.
    Replaced,
    /// It could not be opened.
    NoAccess,
}

impl Refusal {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::NotRegular, Self::TooLong, Self::Foreign, Self::Link, Self::Replaced, Self::NoAccess];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRegular => "not_regular",
            Self::TooLong => "too_long",
            Self::Foreign => "foreign",
            Self::Link => "link",
            Self::Replaced => "replaced",
            Self::NoAccess => "no_access",
        }
    }
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Symbolizers started.
    pub started: u64,
    /// Questions asked.
    pub asked: u64,
    /// Symbolizers that died of a file or had to be ended.
    pub died: u64,
    /// Files that the symbolizer said it cannot read.
    pub unreadable: u64,
    /// Files that were not even shown to it.
    pub refused: [u64; Refusal::ALL.len()],
    /// How the newest one is confined.
    pub confinement: Option<Confinement>,
    /// Why none can be started.
    pub unstartable: Option<String>,
}

impl Stats {
    /// Counts a refused file.
    pub fn refuse(&mut self, why: Refusal) {
        if let Some(count) = self.refused.get_mut(why as usize) {
            *count += 1;
        }
    }

    /// Files refused for one reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused.get(why as usize).copied().unwrap_or(0)
    }

    /// What works less well than it should, in words.
    pub fn degraded(&self) -> Option<String> {
        if let Some(why) = &self.unstartable {
            return Some(format!("names: user frames have none: {why}"));
        }
        let confinement = self.confinement.as_ref()?;
        if confinement.kept_capability.is_some() {
            return Some("names: the symbolizer could not give up its capabilities".to_owned());
        }
        confinement.landlock.is_none().then(|| {
            "names: the symbolizer runs without Landlock, by capabilities, user and system call filter alone (boot with lsm=landlock,…)".to_owned()
        })
    }
}
