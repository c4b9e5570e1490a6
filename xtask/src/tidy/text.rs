//! What no file of the repository may say, whatever its kind: paths of somebody's machine, and work left for later.
//! Takes text, gives violations.

use super::Violation;

/// Beginnings of paths that are true of one machine only. Split, so that this file does not break its own rule.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp", "/t-")];
/// Words for work that was left undone.
const LEFT_FOR_LATER: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
/// Texts that are not ours to word.
const NOT_OURS: [&str; 2] = ["Cargo.lock", "LICENSE"];

pub(crate) fn check(file: &str, content: &str, violations: &mut Vec<Violation>) {
    if NOT_OURS.iter().any(|name| file.starts_with(name)) {
        return;
    }
    for (at, line) in content.lines().enumerate() {
        let mut blame = |rule, word: &str, remedy| {
            violations.push(Violation {
                file: file.to_owned(),
                line: at + 1,
                rule,
                detail: format!("`{word}`"),
                remedy,
            });
        };
        for path in MACHINE_PATHS {
            let starts =
                |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-/$}".contains(before));
            if line.match_indices(path).any(|(at, _)| starts(at)) {
                blame("no machine's paths", path, "name it from the workspace, or take it from the environment");
            }
        }
        for word in LEFT_FOR_LATER {
            let bare = |c: Option<char>| !c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let alone =
                |at: usize| bare(line[..at].chars().next_back()) && bare(line[at + word.len()..].chars().next());
            if line.match_indices(word).any(|(at, _)| alone(at)) {
                blame("nothing left for later", word, "do it now, or open an issue and leave the code whole");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(content: &str) -> Vec<&'static str> {
        let mut violations = Vec::new();
        check("docs/x.md", content, &mut violations);
        violations.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for path in MACHINE_PATHS {
            assert_eq!(broken(&format!("see {path}x")), ["no machine's paths"], "{path}");
        }
        assert!(broken("see target/work/x and https://example.org/root/x").is_empty());
    }

    #[test]
    fn work_left_for_later_is_found() {
        for word in LEFT_FOR_LATER {
            assert_eq!(broken(&format!("// {word}: mend")), ["nothing left for later"], "{word}");
        }
        assert!(broken(concat!("MAS", "TO", "DON and TO", "DO_LIST")).is_empty());
    }
}
