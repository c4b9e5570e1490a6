//! What the kernels said, side by side: reports in, a table and a verdict out. A capability that is missing makes it red;
//! one that is degraded must say what to do.

use serde::Deserialize;

use crate::ui;

/// Checks of the trial begin so; the others are of the host and not of the kernel.
const TRIAL: &str = "try-";

/// How it all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Green,
    Red(String),
    Skipped(String),
}

/// One kernel and what it can.
#[derive(Debug)]
pub(crate) struct Kernel {
    release: String,
    found: Result<Vec<Check>, String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Check {
    name: String,
    status: Status,
    cause: String,
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Degraded,
    Missing,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "yes",
            Self::Degraded => "degraded",
            Self::Missing => "NO",
        }
    }
}

impl Kernel {
    /// From what `tidegate doctor --try -o json` printed.
    pub(crate) fn of_json(release: String, text: &str) -> Self {
        let found = serde_json::from_str::<Vec<Check>>(text).map_err(|error| format!("not a report: {error}"));
        let found = found.and_then(|checks| {
            let tried: Vec<Check> = checks.into_iter().filter(|check| check.name.starts_with(TRIAL)).collect();
            if tried.is_empty() { Err("the report tells of no trial".to_owned()) } else { Ok(tried) }
        });
        Self { release, found }
    }

    /// One that gave no report.
    pub(crate) fn silent(release: &str, cause: &str) -> Self {
        Self { release: release.to_owned(), found: Err(cause.to_owned()) }
    }

    fn check(&self, name: &str) -> Option<&Check> {
        self.found.as_ref().ok()?.iter().find(|check| check.name == name)
    }
}

/// Capabilities by kernel, and below it what is less than yes, with its cause and its remedy.
pub(crate) fn table(kernels: &[Kernel]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for check in kernels.iter().filter_map(|kernel| kernel.found.as_ref().ok()).flatten() {
        if !names.contains(&check.name.as_str()) {
            names.push(&check.name);
        }
    }
    let head: Vec<&str> = std::iter::once("capability").chain(kernels.iter().map(|k| k.release.as_str())).collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let cells = kernels.iter().map(|kernel| kernel.check(name).map_or("?", |check| check.status.word()));
            std::iter::once(name.trim_start_matches(TRIAL)).chain(cells).map(str::to_owned).collect()
        })
        .collect();
    let mut lines = vec![String::new(), ui::table(&head, &rows), String::new()];
    for kernel in kernels {
        match &kernel.found {
            Err(cause) => lines.push(format!("{}: {cause}", kernel.release)),
            Ok(checks) => {
                for check in checks.iter().filter(|check| check.status != Status::Ok) {
                    let (name, word) = (check.name.trim_start_matches(TRIAL), check.status.word());
                    lines.push(format!("{}: {name}: {word}: {}", kernel.release, check.cause));
                    lines.extend(check.remedy.iter().map(|remedy| format!("    remedy: {remedy}")));
                }
            }
        }
    }
    lines.join("\n")
}

/// What that means for the test run.
pub(crate) fn verdict(kernels: &[Kernel], skipped: &[String]) -> Verdict {
    let mut faults = Vec::new();
    for Kernel { release, found } in kernels {
        match found {
            Err(cause) => faults.push(format!("{release}: {cause}")),
            Ok(checks) => {
                let bad = checks
                    .iter()
                    .filter(|c| c.status == Status::Missing || (c.status == Status::Degraded && c.remedy.is_none()));
                faults.extend(bad.map(|c| format!("{release}: {}", c.name.trim_start_matches(TRIAL))));
            }
        }
    }
    if !faults.is_empty() {
        Verdict::Red(faults.join("; "))
    } else if !skipped.is_empty() {
        Verdict::Skipped(skipped.join("; "))
    } else {
        Verdict::Green
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"[
        {"name":"privilege","status":"missing","cause":"not of the kernel"},
        {"name":"try-cpu","status":"ok","cause":"500 samples"},
        {"name":"try-sockets","status":"degraded","cause":"no tracepoint","remedy":"boot 6.3"}]"#;

    #[test]
    fn a_degraded_capability_is_green_as_long_as_it_says_what_to_do() {
        let kernel = Kernel::of_json("6.1".to_owned(), REPORT);
        assert_eq!(verdict(&[kernel], &[]), Verdict::Green);
        let kernel = Kernel::of_json("6.1".to_owned(), &REPORT.replace(r#","remedy":"boot 6.3""#, ""));
        assert_eq!(verdict(&[kernel], &[]), Verdict::Red("6.1: sockets".to_owned()));
    }

    #[test]
    fn a_missing_capability_and_a_silent_kernel_are_red() {
        let refused = Kernel::of_json("6.12".to_owned(), &REPORT.replace("\"ok\"", "\"missing\""));
        let silent = Kernel::silent("6.1", "no report within 120 s");
        let broken = Kernel::of_json("6.5".to_owned(), "Kernel panic");
        let Verdict::Red(cause) = verdict(&[refused, silent, broken], &[]) else { panic!("not red") };
        for part in ["6.12: cpu", "6.1: no report", "6.5: not a report"] {
            assert!(cause.contains(part), "{cause}");
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_kernel_and_tells_every_cause() {
        let kernels = [Kernel::of_json("6.1".to_owned(), REPORT), Kernel::silent("6.12", "no report")];
        let table = table(&kernels);
        for part in ["capability  6.1       6.12", "sockets     degraded  ?", "remedy: boot 6.3", "6.12: no report"] {
            assert!(table.contains(part), "{table}");
        }
        assert!(!table.contains("privilege"));
    }

    #[test]
    fn what_was_skipped_is_said_and_never_hides_a_fault() {
        let good = || Kernel::of_json("6.1".to_owned(), REPORT);
        assert_eq!(verdict(&[good()], &["no qemu".to_owned()]), Verdict::Skipped("no qemu".to_owned()));
        let silent = Kernel::silent("6.1", "no report");
        assert!(matches!(verdict(&[silent], &["no qemu".to_owned()]), Verdict::Red(_)));
    }
}
