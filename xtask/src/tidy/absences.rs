//! What must not be there: each rule is an absence, and each names the few places that are exempt from it.
//! Takes parsed sources and one manifest, gives violations.

use anyhow::{Context, Result};

use super::Violation;
use super::source::{Mention, Source, Zone};

const AYA: [&str; 3] = ["aya", "aya_log", "aya_obj"];
const AYA_MAY_BE_NAMED: [&str; 5] =
    ["agent/src/kernel/", "agent/src/source/ebpf.rs", "agent/src/source/ebpf/", "agent-common/", "agent-ebpf/"];
const PURE: [&str; 4] = ["aggregate", "signal", "control", "profile"];
const CLOCKS: [&str; 3] = ["Instant", "SystemTime", "clock_gettime"];
const UNBOUNDED: [&str; 5] =
    ["unbounded_channel", "unbounded", "UnboundedSender", "UnboundedReceiver", "crossbeam_unbounded"];
const UNSAFE_MAY_STAND: [&str; 5] =
    ["agent-ebpf/", "agent-common/", "agent/src/kernel/", "client/src/page.rs", "client/src/page/"];
const MAIN_FILES: [&str; 2] = ["agent/src/main.rs", "lab/src/main.rs"];
const MAIN_LINES: usize = 60;

pub(crate) fn check(sources: &[Source], violations: &mut Vec<Violation>) {
    let tests: Vec<(&str, &[String])> = sources
        .iter()
        .flat_map(|source| source.test_modules.iter().map(|module| (crate_of(&source.file), module.as_slice())))
        .collect();
    for source in sources {
        let here = crate_of(&source.file);
        for mention in &source.mentions {
            let in_test = mention.zone == Zone::Test
                || tests.iter().any(|(folder, module)| *folder == here && mention.module.starts_with(module));
            check_mention(source, mention, if in_test { Zone::Test } else { Zone::Code }, violations);
        }
        check_file(source, violations);
    }
}

fn check_mention(source: &Source, mention: &Mention, zone: Zone, violations: &mut Vec<Violation>) {
    let file = source.file.as_str();
    let within = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
    let segments: Vec<&str> = mention.segments.iter().map(String::as_str).collect();
    let mut blame = |rule, remedy| {
        violations.push(Violation {
            file: file.to_owned(),
            line: mention.line,
            rule,
            detail: format!("`{}`", segments.join("::")),
            remedy,
        });
    };
    if segments.len() > 1 && AYA.contains(&segments[0]) && !within(&AYA_MAY_BE_NAMED) && file.contains("/src/") {
        blame("only the kernel door names aya", "give kernel/ a function for it, and call that from source::ebpf");
    }
    if file.starts_with("agent/src/") && mention.module.first().is_some_and(|top| PURE.contains(&top.as_str())) {
        if segments.len() > 1 && segments[0] == "tokio" {
            blame("pure layers", "these layers run in virtual time: do the waiting in run/ or source/");
        }
        let io = matches!(segments.as_slice(), ["std", "fs" | "net", ..]);
        if io && zone == Zone::Code {
            blame("pure layers", "read or write at the edge and hand the bytes over");
        }
        if segments.iter().any(|segment| CLOCKS.contains(segment)) {
            blame("pure layers", "take `now: Nanos` as an argument");
        }
    }
    let std_channel = matches!(segments.as_slice(), ["std", "sync", "mpsc", "channel", ..]);
    if std_channel || segments.last().is_some_and(|last| UNBOUNDED.contains(last)) {
        blame("bounded channels", "give it a capacity and count what it lost: `sync_channel(n)`, `mpsc::channel(n)`");
    }
    if file.starts_with("agent-ebpf/") && segments.iter().any(|segment| ["f32", "f64"].contains(segment)) {
        blame("no policy in the kernel", "count in whole numbers; the agent divides");
    }
    if segments.contains(&"unsafe") && !within(&UNSAFE_MAY_STAND) {
        blame(
            "unsafe has its places",
            "use a safe wrapper (rustix, memmap2), or put the block in kernel/ with its proof",
        );
    }
}

fn check_file(source: &Source, violations: &mut Vec<Violation>) {
    let mut blame = |line, rule, detail: &str, remedy| {
        violations.push(Violation { file: source.file.clone(), line, rule, detail: detail.to_owned(), remedy });
    };
    for &line in &source.silenced {
        blame(
            line,
            "expect, never allow",
            "a lint is silenced",
            "write `#[expect(lint, reason = \"…\")]`: it tells when it is no longer needed",
        );
    }
    if source.file.starts_with("agent-ebpf/") {
        for &line in &source.floats {
            blame(
                line,
                "no policy in the kernel",
                "a floating-point number",
                "count in whole numbers; the agent divides",
            );
        }
    }
    if MAIN_FILES.contains(&source.file.as_str()) && source.lines >= MAIN_LINES {
        blame(MAIN_LINES, "a short main", "main.rs parses and calls", "move the work to a module of its own");
    }
}

/// The wire types may depend on nothing but `aya`, and on that only when asked to.
pub(crate) fn check_common_manifest(file: &str, content: &str, violations: &mut Vec<Violation>) -> Result<()> {
    let manifest: toml::Table = content.parse().with_context(|| format!("read {file}"))?;
    for table in ["dependencies", "build-dependencies"] {
        let Some(entries) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
        for (name, entry) in entries {
            let optional = entry.get("optional").and_then(toml::Value::as_bool) == Some(true);
            if table == "dependencies" && name == "aya" && optional {
                continue;
            }
            let line =
                content.lines().position(|line| line.trim_start().starts_with(name.as_str())).map_or(1, |at| at + 1);
            violations.push(Violation {
                file: file.to_owned(),
                line,
                rule: "wire types stand alone",
                detail: format!("{table} names {name}"),
                remedy: "agent-common is built for the kernel too: only an optional `aya` may stand there",
            });
        }
    }
    Ok(())
}

fn crate_of(file: &str) -> &str {
    file.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(file: &str, content: &str) -> Vec<&'static str> {
        let mut violations = Vec::new();
        check(&[Source::parse(file, content).expect("it is Rust")], &mut violations);
        violations.into_iter().map(|violation| violation.rule).collect()
    }

    /// `content` breaks `rule` in `file`, and the same words are fine in `exempt`.
    fn check_rule(rule: &str, content: &str, file: &str, exempt: &str) {
        assert_eq!(broken(file, content), [rule], "{file}: {content}");
        assert!(broken(exempt, content).is_empty(), "{exempt}: {content}");
    }

    #[test]
    fn aya_is_named_at_the_kernel_door_only() {
        let rule = "only the kernel door names aya";
        check_rule(rule, "use aya::Ebpf;", "agent/src/run/mod.rs", "agent/src/kernel/load.rs");
        check_rule(rule, "fn f() { let m = aya::maps::x(); }", "agent/src/source/sim.rs", "agent/src/source/ebpf.rs");
    }

    #[test]
    fn pure_layers_have_no_runtime_no_files_and_no_clock() {
        for content in [
            "use tokio::time::sleep;",
            "use std::{fs::File};",
            "fn f() { std::net::lookup() }",
            "use std::time::Instant;",
            "#[cfg(test)] mod tests { #[tokio::test] async fn t() {} }",
        ] {
            check_rule("pure layers", content, "agent/src/control/governor.rs", "agent/src/serve/listen.rs");
        }
        let fixture = "#[cfg(test)] mod tests { use std::fs::read; }";
        assert!(broken("agent/src/signal/rate.rs", fixture).is_empty(), "a test may read its fixture");
    }

    #[test]
    fn channels_are_bounded_everywhere() {
        let rule = "bounded channels";
        assert_eq!(broken("lab/src/load.rs", "fn f() { tokio::sync::mpsc::unbounded_channel() }"), [rule]);
        assert_eq!(broken("lab/src/load.rs", "use std::sync::mpsc::channel;"), [rule]);
        assert!(
            broken("agent/src/run/mod.rs", "fn f() { mpsc::channel(8); std::sync::mpsc::sync_channel(8) }").is_empty()
        );
    }

    #[test]
    fn the_kernel_side_knows_no_fractions() {
        let rule = "no policy in the kernel";
        check_rule(rule, "fn f(x: f64) {}", "agent-ebpf/src/emit.rs", "agent/src/units.rs");
        check_rule(rule, "const X: T = 0.8;", "agent-ebpf/src/emit.rs", "agent/src/units.rs");
        assert!(broken("agent-ebpf/src/emit.rs", "const X: u64 = 0x1f64; const Y: (u32, u32) = (t.0, 1);").is_empty());
    }

    #[test]
    fn unsafe_stands_in_its_places_only() {
        let rule = "unsafe has its places";
        check_rule(rule, "fn f() { unsafe { g() } }", "lab/src/load.rs", "client/src/page.rs");
        check_rule(rule, "m! { unsafe { g() } }", "agent/src/serve/pages.rs", "agent/src/kernel/btf.rs");
        assert!(broken("lab/src/load.rs", "// unsafe\nconst X: &str = \"unsafe\";").is_empty());
    }

    #[test]
    fn lints_are_expected_never_silenced() {
        let rule = "expect, never allow";
        for content in ["#[allow(dead_code)] fn f() {}", "#![allow(x)]", "#[cfg_attr(test, allow(x))] fn f() {}"] {
            assert_eq!(broken("client/src/lib.rs", content), [rule], "{content}");
        }
        assert!(broken("client/src/lib.rs", "#[expect(x, reason = \"allow(y)\")] fn allow() {}").is_empty());
    }

    #[test]
    fn main_is_short() {
        let long = "\n".repeat(MAIN_LINES);
        check_rule("a short main", &long, "agent/src/main.rs", "agent/src/run/mod.rs");
    }

    #[test]
    fn wire_types_depend_on_nothing_but_optional_aya() {
        let broken = |content: &str| {
            let mut violations = Vec::new();
            check_common_manifest("agent-common/Cargo.toml", content, &mut violations).expect("it is TOML");
            violations.len()
        };
        assert_eq!(broken("[dependencies]\naya = { version = \"1\", optional = true }\n"), 0);
        assert_eq!(broken("[dependencies]\naya = \"1\"\nserde = \"1\"\n"), 2);
    }
}
