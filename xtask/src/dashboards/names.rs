//! Names of metrics: those that the code declares and those that an expression mentions. Takes text, gives names;
//! knows the endings that OpenMetrics adds, and nothing else of PromQL.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use proc_macro2::{TokenStream, TokenTree};

/// What every metric of the agent begins with.
const PREFIX: &str = "tidegate_";
/// Endings that the text format adds to a declared name.
const ENDINGS: [&str; 6] = ["_total", "_bucket", "_sum", "_count", "_created", "_info"];

/// Names of metrics in a Rust file: literals that begin like one inside a `const`.
pub(crate) fn served(code: &str) -> Result<BTreeSet<String>> {
    let tokens: TokenStream = code.parse().map_err(|error| anyhow!("{error}"))?;
    let mut names = BTreeSet::new();
    literals(tokens, Within::Other, &mut names);
    Ok(names)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Constant,
    Other,
}

fn literals(tokens: TokenStream, outer: Within, names: &mut BTreeSet<String>) {
    let mut within = outer;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "const" => within = Within::Constant,
            TokenTree::Ident(ident) if ident == "fn" => within = outer,
            TokenTree::Punct(punct) if punct.as_char() == ';' => within = outer,
            TokenTree::Literal(literal) if within == Within::Constant => {
                let text = literal.to_string();
                let name = text.trim_matches('"');
                if name.starts_with(PREFIX) && name.chars().all(is_of_name) {
                    names.insert(name.to_owned());
                }
            }
            TokenTree::Group(group) => literals(group.stream(), within, names),
            _ => {}
        }
    }
}

/// Names of metrics in an expression. Words in quotes are values of labels, not names.
pub(crate) fn in_expression(expression: &str) -> BTreeSet<String> {
    let outside_quotes = expression.split('"').step_by(2);
    outside_quotes
        .flat_map(|part| part.split(|c| !is_of_name(c)))
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// The declared name behind a name of an expression.
pub(crate) fn base(name: &str, served: &BTreeSet<String>) -> Option<String> {
    let stripped = ENDINGS.iter().filter_map(|ending| name.strip_suffix(ending));
    std::iter::once(name).chain(stripped).find(|name| served.contains(*name)).map(str::to_owned)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"
        /// Not tidegate_in_a_comment.
        pub const RATE: &str = "tidegate_pipeline_rate";
        pub(crate) const LOST: Metric = counter("tidegate_lost", "What was lost");
        const HELP: &str = "tidegate_ is a prefix";
        const fn f() { g("tidegate_not_a_constant"); }
    "#;

    #[test]
    fn constants_name_metrics_and_nothing_else_does() {
        let names: Vec<String> = served(CODE).expect("it is Rust").into_iter().collect();
        assert_eq!(names, ["tidegate_lost", "tidegate_pipeline_rate"]);
    }

    #[test]
    fn an_expression_names_its_metrics_but_not_its_labels() {
        let text = r#"sum by (reason) (rate(tidegate_lost_total{job="tidegate_x"}[5m])) / tidegate_pipeline_rate"#;
        let found: Vec<String> = in_expression(text).into_iter().collect();
        assert_eq!(found, ["tidegate_lost_total", "tidegate_pipeline_rate"]);
    }

    #[test]
    fn endings_of_the_text_format_are_known_and_a_wrong_name_is_not() {
        let served = served(CODE).expect("it is Rust");
        assert_eq!(base("tidegate_lost_total", &served).as_deref(), Some("tidegate_lost"));
        assert_eq!(base("tidegate_pipeline_rate", &served).as_deref(), Some("tidegate_pipeline_rate"));
        assert_eq!(base("tidegate_losses_total", &served), None);
    }
}
