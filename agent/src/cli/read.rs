//! Files of profiles: a path in, a profile out. Which form a file has shows in its first bytes, not in its name.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use crate::profile::import::import;
use crate::profile::{Profile, name_stacks, plain_owner};
use crate::run::replay::replay_file;
use crate::source::recording::is_recording;
use crate::symbolize::Names;
use crate::units::ProfileKind;

/// Longest file that is read.
const MOST_BYTES: u64 = 4 << 30;

/// Reads a recording, folded lines or the output of `perf script`; `-` is standard input. What could not be taken as it
/// stood is said on standard error.
pub fn read_profile(path: &Path, kind: ProfileKind) -> anyhow::Result<Profile> {
    let what = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_BYTES).read_to_end(&mut bytes).with_context(what)?;
    } else {
        let mut file = std::fs::File::open(path).with_context(what)?;
        let mut first = [0; 16];
        let length = file.read(&mut first).with_context(what)?;
        if is_recording(&first[..length]) {
            return recording(path, kind);
        }
        bytes.extend_from_slice(&first[..length]);
        file.take(MOST_BYTES).read_to_end(&mut bytes).with_context(what)?;
    }
    let imported = import(&bytes, kind).with_context(what)?;
    for note in &imported.notes {
        say(path, note);
    }
    Ok(imported.profile)
}

fn recording(path: &Path, kind: ProfileKind) -> anyhow::Result<Profile> {
    let replayed = replay_file(path)?;
    let names: Names = match &replayed.names {
        Some(json) => serde_json::from_slice(json)
            .map_err(|e| anyhow::anyhow!("{}: the table of names is damaged: {e}", path.display()))?,
        None => Names::default(),
    };
    let profile = name_stacks(&replayed.stacks, kind, &names, &replayed.lost, |_| true, plain_owner);
    anyhow::ensure!(!profile.is_empty(), "{}: the recording has no {kind} sample", path.display());
    Ok(profile)
}

#[expect(clippy::print_stderr, reason = "what is said about a profile belongs beside it, not in the log")]
fn say(path: &Path, note: &str) {
    eprintln!("{}: {note}", path.display());
}
