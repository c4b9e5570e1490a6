//! Configuration files: what is refused, and what the error says.

use std::path::Path;

use tidegate::config::{Config, RawConfig, Switch};
use tidegate::history::Keeping;
use tidegate::serve::groups::GroupNames;
use tidegate::units::{Bytes, Nanos, ProfileKind, Ratio};

fn load(text: &str) -> Result<Config, String> {
    RawConfig::parse(Path::new("/etc/x.toml"), text).and_then(Config::try_from).map_err(|e| e.to_string())
}

fn check(text: &str, says: &[&str]) {
    let error = load(text).expect_err("the file is faulty");
    for part in says.iter().chain(&["/etc/x.toml"]) {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

#[test]
fn an_empty_file_gives_the_defaults() {
    assert_eq!(load(""), Ok(Config::default()));
    assert_eq!(load("[cpu]\n"), Ok(Config::default()));
}

#[test]
fn every_key_is_taken() {
    let text = "socket = \"/tmp/a.sock\"\nstate = \"/srv/s\"\nguidance = \"/srv/g.json\"\n[history]\nmib = 64\ndays = 2\n[cpu]\nenabled = false\nhz = 199\n[budget]\npercent = 2\n[profiles]\nkinds = [\"cpu\", \"wall\"]\n[syscalls]\nlatency_slots = 1024\n[unwind]\nmib = 24\n[symbols]\ndebug_mib = 1\n[tune]\nenabled = false\ncpu_cores = 1.5\n[groups]\nread = \"lookers\"\ntune = \"turners\"\n";
    let want = Config {
        socket: "/tmp/a.sock".into(),
        pages: "/tmp/pages".into(),
        history: Some(Keeping {
            directory: "/srv/s".into(),
            most: Bytes(64 << 20),
            longest: Nanos::from_secs(2 * 86_400),
        }),
        guidance: Some("/srv/g.json".into()),
        cpu: Switch::Off,
        hertz: 199,
        kinds: vec![ProfileKind::Cpu, ProfileKind::Wall],
        budget: Ratio(0.02),
        latency_slots: 1024,
        unwind_mib: 24,
        most_debug: Bytes(1 << 20),
        tune: Switch::Off,
        tune_cpu_cores: Some(1.5),
        groups: GroupNames { read: "lookers".to_owned(), tune: "turners".to_owned() },
    };
    assert_eq!(load(text), Ok(want));
}

#[test]
fn the_history_lies_beside_a_socket_of_ones_own_unless_it_is_named_or_off() {
    let directory = |text: &str| load(text).expect("the file is right").history.map(|keeping| keeping.directory);
    assert_eq!(directory(""), Some("/var/lib/tidegate".into()));
    assert_eq!(directory("socket = \"/tmp/x/a.sock\""), Some("/tmp/x/state".into()));
    assert_eq!(directory("socket = \"/tmp/x/a.sock\"\nstate = \"/srv/s\""), Some("/srv/s".into()));
    assert_eq!(directory("state = \"/srv/s\"\n[history]\nenabled = false"), None);
    check("[groups]\ntune = \"a b\"", &["`groups.tune`", "name of a group"]);
    check("[tune]\ncpu_cores = 0", &["`tune.cpu_cores` = 0", "from 0.001 to 4096"]);
    check("[history]\nmib = 1", &["`history.mib` = 1", "from 16 to 65536"]);
}

#[test]
fn pages_stay_where_the_file_says_even_if_the_socket_moves() {
    let config = load("pages = \"/srv/p\"\nsocket = \"/tmp/a.sock\"").expect("the file is right");
    assert_eq!(config.pages, Path::new("/srv/p"));
}

#[test]
fn a_mistyped_key_is_named_with_its_value_and_the_nearest_one() {
    check("sokcet = \"/a\"", &["unknown key `sokcet`", "\"/a\"", "did you mean `socket`?", "cpu.hz"]);
    check("[cpu]\nherz = 3", &["unknown key `cpu.herz` = 3", "did you mean `cpu.hz`?"]);
    check("hz = 3", &["unknown key `hz`", "did you mean `cpu.hz`?"]);
    check("[flux]\ncapacitor = true", &["unknown key `flux.capacitor`"]);
    assert!(!load("[flux]\ncapacitor = true").unwrap_err().contains("did you mean"));
}

#[test]
fn a_value_out_of_range_is_named_with_what_is_allowed() {
    check("[cpu]\nhz = 0", &["`cpu.hz` = 0", "from 1 to 999"]);
    check("[cpu]\nhz = \"97\"", &["`cpu.hz` = \"97\"", "a whole number"]);
    check("[cpu]\nenabled = 1", &["`cpu.enabled` = 1", "true or false"]);
    check("[syscalls]\nlatency_slots = 1000", &["`syscalls.latency_slots` = 1000", "power of two"]);
    check("[syscalls]\nlatency_slots = -1", &["= -1", "power of two"]);
    check("socket = \"api.sock\"", &["`socket` = \"api.sock\"", "absolute path"]);
    check("[profiles]\nkinds = [\"gpu\"]", &["`profiles.kinds` = [\"gpu\"]", "\"offcpu\""]);
    check("[profiles]\nkinds = \"cpu\"", &["a list of"]);
    check("cpu = 97", &["unknown key `cpu` = 97"]);
    check("[socket]\npath = 1", &["`socket`", "absolute path"]);
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line() {
    check("[cpu]\nhz = = 3", &["line 2"]);
}

#[test]
fn a_file_that_is_named_and_missing_is_an_error() {
    let error = Config::load(Some(Path::new("/nonexistent/t.toml"))).expect_err("there is no such file");
    assert!(error.to_string().contains("/nonexistent/t.toml") && error.to_string().contains("--config"), "{error}");
}
