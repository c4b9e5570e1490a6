//! Forms and kinds of profiles as they are typed in: names in, the library's own types out. Knows none itself: what there
//! is, and what each is for, is what the library says.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};

use crate::profile::Format;
use crate::units::ProfileKind;

/// What `tidegate record` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// A profile.
    Profile(Format),
    /// Everything as it came from the kernel, with the names at the end.
    Events,
}

const EVENTS: &str = "events";

/// Takes the name of a format.
pub fn format() -> ValueParser {
    PossibleValuesParser::new(formats()).map(|name| named(&name).expect("clap takes these names only")).into()
}

/// Takes the name of a format, or that of a recording.
pub fn written() -> ValueParser {
    let events = PossibleValue::new(EVENTS).help("Everything as it came from the kernel, with the names at the end");
    let values = formats().into_iter().chain([events]);
    PossibleValuesParser::new(values).map(|name| named(&name).map_or(Written::Events, Written::Profile)).into()
}

/// Takes the name of a kind.
pub fn kind() -> ValueParser {
    let values = ProfileKind::ALL.map(|kind| PossibleValue::new(kind.name()).help(kind.title()));
    let named = |name: String| name.parse::<ProfileKind>().expect("clap takes these names only");
    PossibleValuesParser::new(values).map(named).into()
}

/// A file of that name in this form.
pub fn file_of(format: Format, stem: &str) -> PathBuf {
    format!("{stem}.{}", format.suffix()).into()
}

fn formats() -> [PossibleValue; Format::ALL.len()] {
    Format::ALL.map(|format| PossibleValue::new(format.name()).help(format.what()))
}

fn named(name: &str) -> Option<Format> {
    Format::ALL.into_iter().find(|format| format.name() == name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[arg(long, default_value = "svg", value_parser = format())]
        format: Format,
        #[arg(long, default_value = "svg", value_parser = written())]
        written: Written,
        #[arg(long, default_value = "cpu", value_parser = kind())]
        kind: ProfileKind,
    }

    #[test]
    fn every_name_of_the_library_is_taken_and_no_other() {
        let line = |option: &str, name: &str| Line::try_parse_from(["t", option, name]).map_err(|e| e.to_string());
        for format in Format::ALL {
            assert_eq!(line("--format", format.name()).unwrap().format, format);
            assert_eq!(line("--written", format.name()).unwrap().written, Written::Profile(format));
        }
        for kind in ProfileKind::ALL {
            assert_eq!(line("--kind", kind.name()).unwrap().kind, kind);
        }
        assert_eq!(line("--written", "events").unwrap().written, Written::Events);
        assert!(line("--format", "events").err().unwrap().contains("speedscope"), "the error says what there is");
        assert!(line("--kind", "gpu").err().unwrap().contains("offcpu"));
    }
}
