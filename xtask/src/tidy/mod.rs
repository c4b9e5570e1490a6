//! The rules of the house, held against the code's own words: the repository's files come in, violations and
//! questions go out. Never changes a file.

mod absences;
mod layers;
mod source;
mod text;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::shell::{self, Workspace};
use crate::ui;
use source::Source;

/// A rule that a line breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    rule: &'static str,
    detail: String,
    remedy: &'static str,
}

/// Length above which a file's author is asked whether it holds one thing or two.
const LONG_FILE: usize = 400;

pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let files = files(workspace)?;
    let mut violations = Vec::new();
    let mut questions = Vec::new();
    let mut sources = Vec::new();
    for name in files {
        let path = workspace.root.join(&name);
        // A file that git still lists may be gone from the tree, and pictures are no text.
        let Ok(content) = std::fs::read_to_string(&path) else { continue };
        text::check(&name, &content, &mut violations);
        if is_rust(&name) {
            if content.lines().count() > LONG_FILE {
                questions.push(format!("{name}: {} lines: one job, or two?", content.lines().count()));
            }
            sources.push(Source::parse(&name, &content).with_context(|| format!("read {name} as Rust"))?);
        } else if name == "agent-common/Cargo.toml" {
            absences::check_common_manifest(&name, &content, &mut violations)?;
        }
    }
    layers::check(&sources, &mut violations);
    absences::check(&sources, &mut violations);
    Ok(report(sources.len(), violations, &questions))
}

fn report(sources: usize, mut violations: Vec<Violation>, questions: &[String]) -> ExitCode {
    violations.sort();
    violations.dedup();
    for question in questions {
        ui::line(format_args!("question: {question}"));
    }
    for Violation { file, line, rule, detail, remedy } in &violations {
        ui::line(format_args!("{file}:{line}: {rule}: {detail}\n    {remedy}"));
    }
    ui::line(format_args!(
        "tidy: {sources} Rust files, {} violations, {} questions",
        violations.len(),
        questions.len()
    ));
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Names of the files that are, or are about to be, in the repository.
fn files(workspace: &Workspace) -> Result<Vec<String>> {
    let list = shell::capture(workspace.command("git").args([
        "-c",
        // The checks run as root in a clone that may belong to somebody else.
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))
    .context("list the repository's files")?;
    Ok(list.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "rs")
}
