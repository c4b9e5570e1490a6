//! The measured table of guidance: the built-in one, or the operator's own measurement from a file. Bytes in, a table that
//! makes sense out; never measures, and never mixes the two.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tidegate_client::abi::{Guidance, Range};

/// The table as it was measured when this version was made; the command that made it stands in it.
const BUILT_IN: &str = include_str!("guidance.json");
/// A file beyond this is something else.
const MOST: u64 = 64 << 10;

/// Why an operator's table was refused.
#[derive(Debug, thiserror::Error)]
pub enum GuidanceError {
    /// It could not be read.
    #[error(
        "read guidance {file}: {error} (make one with `tidegate-lab guidance --json {file}`, or drop the key `guidance`)"
    )]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It is no table of guidance.
    #[error("guidance {file}: {why} (make one with `tidegate-lab guidance --json {file}`)")]
    Bad {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The built-in table.
pub fn built_in() -> Guidance {
    serde_json::from_str(BUILT_IN).expect("the built-in table is checked by a test")
}

/// The table of `file`, or the built-in one where no file is named.
pub fn load(file: Option<&Path>) -> Result<Guidance, GuidanceError> {
    let Some(file) = file else { return Ok(built_in()) };
    let mut text = String::new();
    let read = File::open(file).and_then(|f| f.take(MOST + 1).read_to_string(&mut text));
    read.map_err(|error| GuidanceError::Read { file: file.to_owned(), error })?;
    parse(&text).map_err(|why| GuidanceError::Bad { file: file.to_owned(), why })
}

fn parse(text: &str) -> Result<Guidance, String> {
    if text.len() as u64 > MOST {
        return Err(format!("longer than {} KiB", MOST >> 10));
    }
    let guidance: Guidance = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if guidance.rows.is_empty() {
        return Err("no row".to_owned());
    }
    for (i, row) in guidance.rows.iter().enumerate() {
        let good = |range: Range| range.from > 0.0 && range.from <= range.to && range.to.is_finite();
        if !good(row.batch_messages) || !good(row.flush_ms) || row.batch_bytes == 0 || row.flush_interval_us == 0 {
            return Err(format!("row {}: a range that is empty, or a setting of 0", i + 1));
        }
    }
    Ok(guidance)
}

#[cfg(test)]
mod tests {
    use tidegate_client::abi::Purpose;

    use super::*;

    #[test]
    fn the_built_in_table_is_whole() {
        let table = parse(BUILT_IN).unwrap();
        assert_eq!(table, built_in());
        assert!(table.command.starts_with("tidegate-lab guidance"), "{}", table.command);
        for messages in ["under 1 KiB", "over 10 KiB"] {
            for purpose in [Purpose::RealTime, Purpose::Balanced, Purpose::HighThroughput] {
                let rows = table.rows.iter().filter(|r| r.messages == messages && r.purpose == purpose);
                assert_eq!(rows.count(), 1, "{messages}, {purpose:?}");
            }
        }
    }

    #[test]
    fn an_operators_table_takes_the_place_of_the_built_in_one() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("own.json");
        let own = Guidance { machine: "mine".to_owned(), ..built_in() };
        std::fs::write(&file, serde_json::to_string(&own).unwrap()).unwrap();
        assert_eq!(load(Some(&file)).unwrap(), own);
        assert_eq!(load(None).unwrap(), built_in());
    }

    #[test]
    fn a_damaged_table_is_refused_with_its_name_and_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("own.json");
        let empty = serde_json::to_string(&Guidance { rows: Vec::new(), ..built_in() }).unwrap();
        let mut none = built_in();
        none.rows[0].flush_interval_us = 0;
        let none = serde_json::to_string(&none).unwrap();
        let long = " ".repeat(usize::try_from(MOST).unwrap() + 2);
        for text in ["{", "[]", empty.as_str(), none.as_str(), long.as_str()] {
            std::fs::write(&file, text).unwrap();
            let error = load(Some(&file)).unwrap_err().to_string();
            assert!(error.contains("own.json") && error.contains("tidegate-lab guidance"), "{error}");
        }
        assert!(load(Some(&directory.path().join("none"))).is_err());
    }
}
