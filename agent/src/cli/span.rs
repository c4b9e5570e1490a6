//! What of the past is asked for, as it is typed in: arguments in, those of the agent's query out. The same for every
//! command that looks back; the agent says which times there are.

use super::formats;
use crate::units::ProfileKind;

/// A kind, its span, and what it is compared with.
#[derive(Clone, Debug, clap::Args)]
pub struct SpanArgs {
    /// What it shows
    #[arg(long, value_name = "KIND", default_value = "cpu", value_parser = formats::kind())]
    pub kind: ProfileKind,
    /// Start of the span
    #[arg(long, value_name = "TIME", default_value = "-60s", allow_hyphen_values = true)]
    pub from: String,
    /// End of the span
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    pub to: String,
    /// Start of the span of before that it is compared with
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub diff_from: Option<String>,
    /// End of that [default: as long after its start as the span is]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "diff_from")]
    pub diff_to: Option<String>,
}

impl SpanArgs {
    /// The times as arguments of a query.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let Self { kind: _, from, to, diff_from, diff_to } = self;
        let spans =
            [("from", Some(from)), ("to", Some(to)), ("diff_from", diff_from.as_ref()), ("diff_to", diff_to.as_ref())];
        spans.into_iter().filter_map(|(key, value)| Some((key, value?.clone()))).collect()
    }
}
