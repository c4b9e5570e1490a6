//! Who may import whom inside the agent: a module imports lower layers only, and siblings never import each other.
//! Takes parsed sources, gives violations; the table below is the one in `ARCHITECTURE.md`.

use std::collections::BTreeSet;

use super::Violation;
use super::source::{Mention, Source, Zone};

/// Layer of each top-level module. Crates of layer 0 (`agent-common`, `tidegate-client`) stand below all of them.
const LAYERS: [(&str, u8); 19] = [
    ("units", 1),
    ("event", 1),
    ("source", 2),
    ("kernel", 2),
    ("aggregate", 3),
    ("symbolize", 4),
    ("signal", 4),
    ("control", 5),
    ("profile", 5),
    ("history", 6),
    ("serve", 6),
    ("config", EDGE),
    ("cli", EDGE),
    ("run", EDGE),
    ("main", EDGE),
    ("web", EDGE),
    ("top", EDGE),
    ("doctor", EDGE),
    ("build", EDGE),
];

/// The layer whose modules wire the others together and may name each other.
const EDGE: u8 = 7;

/// What `control::demand` may name beside signals: who asks for facts, and which facts a source is asked for.
const DEMAND_MAY_NAME: [(&str, &[&str]); 2] =
    [("event", &["Watch", "WatchKind"]), ("source", &["Wanted", "Scope", "ReportFile"])];

/// What the agent shares with pipelines below its edge.
const OF_CLIENT: [&str; 4] = ["abi", "page", "rule", "units"];

const DOWNWARDS: &str = "layers";
const REMEDY: &str = "move what is shared to a lower layer, or hand it over as a value from the edge (run, cli)";

pub(crate) fn check(sources: &[Source], violations: &mut Vec<Violation>) {
    let agent: Vec<&Source> = sources.iter().filter(|source| source.file.starts_with("agent/src/")).collect();
    let modules: BTreeSet<&str> = agent.iter().filter_map(|source| top_of(&source.file)).collect();
    for source in agent {
        let Some(top) = top_of(&source.file) else { continue };
        if layer(top).is_none() {
            violations.push(Violation {
                file: source.file.clone(),
                line: 1,
                rule: DOWNWARDS,
                detail: format!("module {top} has no layer"),
                remedy: "give it one in xtask/src/tidy/layers.rs and in ARCHITECTURE.md",
            });
        }
        for mention in &source.mentions {
            check_mention(source, mention, &modules, violations);
        }
    }
}

fn check_mention(source: &Source, mention: &Mention, modules: &BTreeSet<&str>, violations: &mut Vec<Violation>) {
    let Some(from) = mention.module.first().map(String::as_str) else { return };
    let mut blame = |rule, detail: String, remedy| {
        violations.push(Violation { file: source.file.clone(), line: mention.line, rule, detail, remedy });
    };
    if let [first, second, ..] = mention.segments.as_slice()
        && first == "tidegate_client"
        && layer(from).is_some_and(|layer| layer < EDGE)
        && mention.zone == Zone::Code
        && !OF_CLIENT.contains(&second.as_str())
    {
        let remedy = "below the edge the agent shares with pipelines the pages, the JSON types and the flush rule with its units";
        blame(DOWNWARDS, format!("{from} names tidegate_client::{second}"), remedy);
    }
    let Some(path) = mention.inside_crate("tidegate") else { return };
    let Some(to) = path.first().map(String::as_str) else { return };
    if from == to || !modules.contains(to) {
        return;
    }
    let (Some(own), Some(other)) = (layer(from), layer(to)) else { return };
    let in_file =
        |module: &[&str]| mention.module.iter().map(String::as_str).take(module.len()).eq(module.iter().copied());
    if from == "control" && !["units", "signal"].contains(&to) {
        let named = path.get(1).map_or("", String::as_str);
        let is_demand = DEMAND_MAY_NAME.iter().any(|(module, names)| *module == to && names.contains(&named));
        if !(is_demand && in_file(&["control", "demand"])) {
            let remedy = "hand it over as a signal: a controller that sees events cannot be replayed from signals";
            blame("control sees signals only", format!("control names {}", path.join("::")), remedy);
        }
        return;
    }
    if to == "kernel" {
        if !in_file(&["source", "ebpf"]) {
            let remedy = "ask through source::ebpf, the one door to the kernel side";
            blame("kernel has one door", format!("{from} names {}", path.join("::")), remedy);
        }
        return;
    }
    let allowed = own > other || own == EDGE && other == EDGE || (from, to) == ("event", "units");
    if !allowed {
        blame(DOWNWARDS, format!("{from} (layer {own}) names {} (layer {other})", path.join("::")), REMEDY);
    }
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Top-level module of a file of the agent; nothing for the root, which only declares the others.
fn top_of(file: &str) -> Option<&str> {
    let top = file.strip_prefix("agent/src/")?.split('/').next()?.trim_end_matches(".rs");
    (top != "lib").then_some(top)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules broken by `content` in `file`, in a house that has every module.
    fn broken(file: &str, content: &str) -> Vec<&'static str> {
        let mut sources: Vec<Source> = LAYERS
            .iter()
            .map(|(name, _)| Source::parse(&format!("agent/src/{name}/mod.rs"), "").expect("empty is Rust"))
            .collect();
        sources.push(Source::parse(file, content).expect("it is Rust"));
        let mut violations = Vec::new();
        check(&sources, &mut violations);
        let mut rules: Vec<_> = violations.into_iter().map(|violation| violation.rule).collect();
        rules.dedup();
        rules
    }

    #[test]
    fn an_import_upwards_is_found_wherever_it_hides() {
        for content in [
            "use crate::serve::View;",
            "use crate::{units::Nanos, serve::{self, View}};",
            "fn f() { crate::serve::view(); }",
            "fn f() { println!(\"{}\", crate::serve::view()); }",
            "use super::super::serve::View;",
            "#[cfg(test)] mod tests { use crate::serve::View; }",
            "use tidegate::serve::View;",
        ] {
            assert_eq!(broken("agent/src/signal/rate.rs", content), [DOWNWARDS], "{content}");
        }
    }

    #[test]
    fn downward_imports_and_the_edge_among_itself_are_allowed() {
        for (file, content) in [
            ("agent/src/serve/routes.rs", "use crate::aggregate::lost::Lost; use crate::units::Pid; use super::view;"),
            ("agent/src/event.rs", "use crate::units::Nanos;"),
            ("agent/src/run/mod.rs", "use crate::cli::Args; use crate::config::Config;"),
            ("agent/src/source/ebpf.rs", "use crate::kernel::Loaded;"),
            ("agent/src/control/demand.rs", "use crate::source::{Scope, Wanted}; use crate::signal::Signals;"),
            ("agent/src/serve/view.rs", "use tidegate_client::abi::SignalsJson;"),
        ] {
            assert!(broken(file, content).is_empty(), "{file}: {content}");
        }
    }

    #[test]
    fn siblings_never_import_each_other() {
        assert_eq!(broken("agent/src/history/mod.rs", "use crate::serve::View;"), [DOWNWARDS]);
        assert_eq!(broken("agent/src/units.rs", "use crate::event::Event;"), [DOWNWARDS]);
    }

    #[test]
    fn control_sees_neither_events_nor_windows() {
        let rule = "control sees signals only";
        assert_eq!(broken("agent/src/control/governor.rs", "use crate::event::Event;"), [rule]);
        assert_eq!(broken("agent/src/control/governor.rs", "use crate::aggregate::Window;"), [rule]);
        assert_eq!(broken("agent/src/control/governor.rs", "use crate::source::Wanted;"), [rule]);
        assert_eq!(broken("agent/src/control/demand.rs", "use crate::source::EventSource;"), [rule]);
        assert_eq!(broken("agent/src/control/demand.rs", "use crate::event::{Event, Watch};"), [rule]);
    }

    #[test]
    fn the_kernel_side_has_one_door() {
        assert_eq!(broken("agent/src/doctor/mod.rs", "use crate::kernel::caps;"), ["kernel has one door"]);
        assert_eq!(broken("agent/src/source/sim.rs", "use crate::kernel::caps;"), ["kernel has one door"]);
    }

    #[test]
    fn a_module_without_layer_is_named() {
        assert_eq!(broken("agent/src/helpers.rs", ""), [DOWNWARDS]);
    }

    #[test]
    fn the_agent_shares_only_pages_bodies_and_the_rule_with_pipelines() {
        assert_eq!(broken("agent/src/control/regime.rs", "use tidegate_client::Batcher;"), [DOWNWARDS]);
    }
}
