//! Configuration: a file of TOML in, settings that make sense out. What does not parse never gets further than here.
//!
//! One table names every key with its kind and range; it checks the file, and an error says file, key, value, what is
//! allowed, and the nearest key where one was mistyped. Flags of the command line are laid over the result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::control::budget::DEFAULT_BUDGET;
use crate::history::Keeping;
use crate::serve::groups::GroupNames;
use crate::units::{Bytes, Nanos, ProfileKind, Ratio};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/tidegate/tidegate.toml";
/// Where the socket is when none is named.
pub const DEFAULT_SOCKET: &str = "/run/tidegate/api.sock";

/// Where the history is kept when no directory is named.
pub const DEFAULT_STATE: &str = "/var/lib/tidegate";

const DAY_S: u64 = 86_400;

/// The agent's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Directory of the settings pages.
    pub pages: PathBuf,
    /// Where the history is kept; absent when none is.
    pub history: Option<Keeping>,
    /// The operator's own table of guidance; absent where the built-in one is served.
    pub guidance: Option<PathBuf>,
    /// On-CPU sampling when nobody asks.
    pub cpu: Switch,
    /// CPU samples per second and CPU.
    pub hertz: u64,
    /// Kinds of profiles that are recorded all the time.
    pub kinds: Vec<ProfileKind>,
    /// Share of the host that the agent may cost.
    pub budget: Ratio,
    /// Latency slots of system calls.
    pub latency_slots: u32,
    /// MiB of kernel memory for unwind tables.
    pub unwind_mib: u32,
    /// Debug information of a file beyond this names no inlined functions while the agent records all the time.
    pub most_debug: Bytes,
    /// Whether the agent tunes from its start; off, it starts paused.
    pub tune: Switch,
    /// CPU time that the tuned pipelines divide among them, cores; absent for as much as there is.
    pub tune_cpu_cores: Option<f64>,
    /// Groups whose members may see or turn what belongs to others.
    pub groups: GroupNames,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// A file as it was read: TOML, nothing else is known yet.
#[derive(Clone, Debug)]
pub struct RawConfig {
    file: PathBuf,
    table: Table,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("read configuration {file}: {error} (name another with --config)")]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is no TOML.
    #[error("configuration {file}: {error}")]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// Where and why, over several lines.
        error: String,
    },
    /// A key that does not exist.
    #[error("configuration {file}: unknown key `{key}` = {value}{} (keys: {known})", nearest(.near.as_deref()))]
    UnknownKey {
        /// Which file.
        file: PathBuf,
        /// The key, with its section.
        key: String,
        /// Its value.
        value: String,
        /// The nearest key there is.
        near: Option<String>,
        /// All keys there are.
        known: String,
    },
    /// A value of the wrong kind or out of range.
    #[error("configuration {file}: `{key}` = {value}: want {allowed}")]
    BadValue {
        /// Which file.
        file: PathBuf,
        /// The key, with its section.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

fn nearest(key: Option<&str>) -> String {
    key.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    AbsolutePath,
    OnOff,
    Whole(i64, i64),
    PowerOfTwo(i64, i64),
    ProfileKinds,
    /// Name of a group.
    Group,
    /// Percent, from and to.
    Percent(f64, f64),
    Number(f64, f64),
}

const SOCKET: &str = "socket";
const PAGES: &str = "pages";
const STATE: &str = "state";
const GUIDANCE: &str = "guidance";
const HISTORY_ENABLED: &str = "history.enabled";
const HISTORY_MIB: &str = "history.mib";
const HISTORY_DAYS: &str = "history.days";
const CPU_ENABLED: &str = "cpu.enabled";
const CPU_HZ: &str = "cpu.hz";
const PROFILE_KINDS: &str = "profiles.kinds";
const BUDGET: &str = "budget.percent";
const LATENCY_SLOTS: &str = "syscalls.latency_slots";
const UNWIND_MIB: &str = "unwind.mib";
const SYMBOLS_DEBUG_MIB: &str = "symbols.debug_mib";
const TUNE_ENABLED: &str = "tune.enabled";
const TUNE_CPU_CORES: &str = "tune.cpu_cores";
const GROUPS_READ: &str = "groups.read";
const GROUPS_TUNE: &str = "groups.tune";

/// Every key there is.
const KEYS: [(&str, Kind); 18] = [
    (SOCKET, Kind::AbsolutePath),
    (PAGES, Kind::AbsolutePath),
    (STATE, Kind::AbsolutePath),
    (GUIDANCE, Kind::AbsolutePath),
    (HISTORY_ENABLED, Kind::OnOff),
    (HISTORY_MIB, Kind::Whole(16, 65_536)),
    (HISTORY_DAYS, Kind::Whole(1, 365)),
    (CPU_ENABLED, Kind::OnOff),
    // Above a kilohertz sampling disturbs what it measures.
    (CPU_HZ, Kind::Whole(1, 999)),
    (PROFILE_KINDS, Kind::ProfileKinds),
    (BUDGET, Kind::Percent(0.1, 100.0)),
    (LATENCY_SLOTS, Kind::PowerOfTwo(1, 65_536)),
    (UNWIND_MIB, Kind::Whole(1, 512)),
    (SYMBOLS_DEBUG_MIB, Kind::Whole(0, 384)),
    (TUNE_ENABLED, Kind::OnOff),
    (TUNE_CPU_CORES, Kind::Number(0.001, 4_096.0)),
    (GROUPS_READ, Kind::Group),
    (GROUPS_TUNE, Kind::Group),
];

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            pages: beside(Path::new(DEFAULT_SOCKET)),
            history: Some(Keeping {
                directory: DEFAULT_STATE.into(),
                most: Bytes(256 << 20),
                longest: Nanos::from_secs(7 * DAY_S),
            }),
            guidance: None,
            cpu: Switch::On,
            hertz: 97,
            kinds: vec![ProfileKind::Cpu],
            budget: DEFAULT_BUDGET,
            latency_slots: 65_536,
            unwind_mib: 12,
            most_debug: Bytes(8 << 20),
            tune: Switch::On,
            tune_cpu_cores: None,
            groups: GroupNames::default(),
        }
    }
}

/// The directory of pages that goes with a socket.
pub fn beside(socket: &Path) -> PathBuf {
    socket.with_file_name("pages")
}

impl Config {
    /// From the file named, or from the usual one if it is there, or the defaults.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let usual = Path::new(DEFAULT_FILE);
        match (named, usual.exists()) {
            (Some(file), _) => RawConfig::read(file).and_then(Self::try_from),
            (None, true) => RawConfig::read(usual).and_then(Self::try_from),
            (None, false) => Ok(Self::default()),
        }
    }

    /// Moves socket, pages and history elsewhere: an agent with a socket of its own is another agent.
    pub fn move_socket(&mut self, socket: &Path) {
        socket.clone_into(&mut self.socket);
        self.pages = beside(socket);
        if socket != Path::new(DEFAULT_SOCKET) {
            self.move_state(&socket.with_file_name("state"));
        }
    }

    /// Moves the history elsewhere.
    pub fn move_state(&mut self, directory: &Path) {
        if let Some(keeping) = &mut self.history {
            directory.clone_into(&mut keeping.directory);
        }
    }
}

impl RawConfig {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|error| ConfigError::Read { file: file.to_owned(), error })?;
        Self::parse(file, &text)
    }

    /// Parses the text of a file.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = file.to_owned();
        match text.parse() {
            Ok(table) => Ok(Self { file, table }),
            Err(error) => Err(ConfigError::Syntax { file, error: toml::de::Error::to_string(&error) }),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (key, value) in leaves(&self.table) {
            let Some((name, kind)) = KEYS.into_iter().find(|(name, _)| *name == key) else {
                return Err(self.unknown(key, value));
            };
            if let Some(allowed) = kind.refuses(value) {
                return Err(ConfigError::BadValue {
                    file: self.file.clone(),
                    key: name,
                    value: value.to_string(),
                    allowed,
                });
            }
        }
        Ok(())
    }

    fn unknown(&self, key: String, value: &Value) -> ConfigError {
        let distance = |name: &str| strsim::damerau_levenshtein(name, &key);
        // The right name in the wrong section is as near as a slip of the finger.
        let same_leaf = |name: &str| name.rsplit('.').next() == key.rsplit('.').next();
        let near = KEYS.into_iter().map(|(name, _)| name).min_by_key(|name| (distance(name), *name));
        let near = KEYS
            .into_iter()
            .map(|(name, _)| name)
            .find(|name| same_leaf(name))
            .or(near.filter(|name| distance(name) <= 3))
            .map(str::to_owned);
        let known = KEYS.map(|(name, _)| name).join(", ");
        ConfigError::UnknownKey { file: self.file.clone(), key, value: value.to_string(), near, known }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        leaves(&self.table).into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn switch(&self, key: &str) -> Option<Switch> {
        self.value(key)?.as_bool().map(|on| if on { Switch::On } else { Switch::Off })
    }

    fn number(&self, key: &str) -> Option<f64> {
        number(self.value(key)?)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.value(key)?.as_str().map(PathBuf::from)
    }

    fn whole<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        self.value(key)?.as_integer().and_then(|n| T::try_from(n).ok())
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        raw.check()?;
        let mut config = Self::default();
        if let Some(socket) = raw.path(SOCKET) {
            config.move_socket(&socket);
        }
        config.pages = raw.path(PAGES).unwrap_or(config.pages);
        if let Some(directory) = raw.path(STATE) {
            config.move_state(&directory);
        }
        if let Some(keeping) = &mut config.history {
            keeping.most = raw.whole(HISTORY_MIB).map_or(keeping.most, |mib: u64| Bytes(mib << 20));
            keeping.longest =
                raw.whole(HISTORY_DAYS).map_or(keeping.longest, |days: u64| Nanos::from_secs(days * DAY_S));
        }
        if raw.switch(HISTORY_ENABLED) == Some(Switch::Off) {
            config.history = None;
        }
        config.guidance = raw.path(GUIDANCE);
        config.cpu = raw.switch(CPU_ENABLED).unwrap_or(config.cpu);
        config.hertz = raw.whole(CPU_HZ).unwrap_or(config.hertz);
        config.kinds = raw.value(PROFILE_KINDS).and_then(profile_kinds).unwrap_or(config.kinds);
        config.budget = raw.value(BUDGET).and_then(number).map_or(config.budget, |percent| Ratio(percent / 100.0));
        config.latency_slots = raw.whole(LATENCY_SLOTS).unwrap_or(config.latency_slots);
        config.unwind_mib = raw.whole(UNWIND_MIB).unwrap_or(config.unwind_mib);
        config.most_debug = raw.whole(SYMBOLS_DEBUG_MIB).map_or(config.most_debug, |mib: u64| Bytes(mib << 20));
        let group = |key| raw.value(key).and_then(Value::as_str).map(str::to_owned);
        config.groups.read = group(GROUPS_READ).unwrap_or(config.groups.read);
        config.groups.tune = group(GROUPS_TUNE).unwrap_or(config.groups.tune);
        config.tune = raw.switch(TUNE_ENABLED).unwrap_or(config.tune);
        config.tune_cpu_cores = raw.number(TUNE_CPU_CORES);
        Ok(config)
    }
}

impl Kind {
    /// What would be allowed, when `value` is not.
    fn refuses(self, value: &Value) -> Option<String> {
        let (fits, allowed) = match self {
            Self::AbsolutePath => {
                (value.as_str().is_some_and(|s| s.starts_with('/')), "an absolute path in quotes".to_owned())
            }
            Self::OnOff => (value.is_bool(), "true or false".to_owned()),
            Self::Whole(min, max) => {
                let fits = value.as_integer().is_some_and(|n| (min..=max).contains(&n));
                (fits, format!("a whole number from {min} to {max}"))
            }
            Self::PowerOfTwo(min, max) => {
                let fits = |n: i64| (min..=max).contains(&n) && n.unsigned_abs().is_power_of_two();
                (value.as_integer().is_some_and(fits), format!("a power of two from {min} to {max}"))
            }
            Self::Percent(min, max) | Self::Number(min, max) => {
                let fits = number(value).is_some_and(|n| (min..=max).contains(&n));
                (fits, format!("a number from {min} to {max}"))
            }
            Self::Group => (value.as_str().is_some_and(is_group_name), "the name of a group in quotes".to_owned()),
            Self::ProfileKinds => {
                let names: Vec<String> = ProfileKind::ALL.iter().map(|kind| format!("\"{kind}\"")).collect();
                (profile_kinds(value).is_some(), format!("a list of {}", names.join(", ")))
            }
        };
        (!fits).then_some(allowed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage has two digits")]
fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// Whether a group can have that name: the characters of `useradd`, 32 at most.
fn is_group_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=32).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('-')
}

/// A list of kinds of profiles, if it is one.
fn profile_kinds(value: &Value) -> Option<Vec<ProfileKind>> {
    value.as_array()?.iter().map(|name| name.as_str()?.parse().ok()).collect()
}

/// Every value with the dotted name of its key. A table that should be a value, and a value that should be a table,
/// come out as keys that do not exist or values of the wrong kind.
fn leaves(table: &Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if !inner.is_empty() && !KEYS.iter().any(|(name, _)| name == key) => {
                found.extend(leaves(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            Value::Table(inner)
                if inner.is_empty() && KEYS.iter().any(|(name, _)| name.starts_with(&format!("{key}."))) => {}
            _ => found.push((key.clone(), value)),
        }
    }
    found
}
