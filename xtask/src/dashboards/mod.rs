//! Dashboards held against the code: every metric that an expression names must be one that the agent serves.
//! Takes the dashboard and the file that names the metrics, gives the names that only one of them knows.

mod names;
mod panels;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::shell::Workspace;
use crate::ui;

/// Where the agent names its metrics, as string constants in one file.
const METRICS: &str = "agent/src/serve/metrics.rs";
const DASHBOARD: &str = "dashboards/grafana/tidegate.json";

pub(crate) fn run(workspace: &Workspace, file: Option<PathBuf>) -> Result<ExitCode> {
    let metrics = workspace.root.join(METRICS);
    let code = std::fs::read_to_string(&metrics)
        .with_context(|| format!("read {METRICS}, where the agent names its metrics"))?;
    let served = names::served(&code).with_context(|| format!("read {METRICS} as Rust"))?;
    let path = file.unwrap_or_else(|| workspace.root.join(DASHBOARD));
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let dashboard = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let expressions = panels::expressions(&dashboard);

    let mut shown = BTreeSet::new();
    let mut wrong = 0_usize;
    for expression in &expressions {
        for name in names::in_expression(&expression.text) {
            if let Some(base) = names::base(&name, &served) {
                shown.insert(base);
                continue;
            }
            wrong += 1;
            let (file, panel) = (path.display(), &expression.panel);
            ui::line(format_args!("{file}: panel {panel:?}: the agent serves no metric {name} (see {METRICS})"));
        }
    }
    for name in served.iter().filter(|name| !shown.contains(*name)) {
        ui::line(format_args!("question: no panel shows {name}"));
    }
    ui::line(format_args!(
        "dashboards: {} expressions, {} of {} metrics shown, {wrong} unknown",
        expressions.len(),
        shown.len(),
        served.len()
    ));
    Ok(if wrong == 0 && !expressions.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
