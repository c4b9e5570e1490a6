//! Folded stacks: `comm;outermost;…;innermost COUNT`, kernel frames marked `_[k]`, sorted, so that the same profile is
//! the same bytes.

use super::model::{Origin, Profile};

/// The lines as text.
pub fn folded_text(profile: &Profile) -> String {
    let mut lines: Vec<String> = Vec::with_capacity(profile.stacks.len());
    for stack in &profile.stacks {
        let mut line = profile.owner_of(stack).map_or_else(String::new, |owner| owner.comm.to_string());
        for frame in profile.names_of(stack) {
            line.push(';');
            line.push_str(&frame.name);
            if frame.origin == Origin::Kernel {
                line.push_str("_[k]");
            }
        }
        // Two numbers at the end are read as a comparison of two profiles: the name's own is tied to its word.
        if let Some((before, last)) = line.rsplit_once(' ')
            && last.parse::<f64>().is_ok()
        {
            line = format!("{before}_{last}");
        }
        line.push(' ');
        line.push_str(&stack.value(profile.kind).to_string());
        lines.push(line);
    }
    lines.sort_unstable();
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}
