//! The table of names: plain data, sorted, the same bytes for the same contents.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::units::Pid;

/// Whose address space an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The kernel.
    Kernel,
    /// A process.
    User(Pid),
}

/// Names by address.
type Table = BTreeMap<u64, Box<[Arc<str>]>>;

/// Names of addresses, outermost of several inlined functions first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Names {
    kernel: Table,
    user: BTreeMap<u32, Table>,
    /// Every name once: thousands of addresses lie in the same functions.
    #[serde(skip)]
    known: HashSet<Arc<str>>,
}

impl Names {
    /// Names of the functions at `address`, outermost first; `None` when it was never looked up.
    pub fn get(&self, space: Space, address: u64) -> Option<&[Arc<str>]> {
        let table = match space {
            Space::Kernel => &self.kernel,
            Space::User(pid) => self.user.get(&pid.0)?,
        };
        table.get(&address).map(|frames| &**frames)
    }

    /// Notes the functions at `address`. Characters that no graph can carry are taken out here, once.
    pub fn insert(&mut self, space: Space, address: u64, frames: impl IntoIterator<Item = String>) {
        let frames: Box<[Arc<str>]> = frames.into_iter().map(|f| self.intern(&f)).collect();
        let table = match space {
            Space::Kernel => &mut self.kernel,
            Space::User(pid) => self.user.entry(pid.0).or_default(),
        };
        table.insert(address, frames);
    }

    fn intern(&mut self, name: &str) -> Arc<str> {
        let name = clean(name);
        if let Some(known) = self.known.get(name.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.known.insert(Arc::clone(&name));
        name
    }

    /// Forgets the names of a process: its number has passed to another one.
    pub fn forget(&mut self, pid: Pid) {
        self.user.remove(&pid.0);
    }

    /// Addresses noted.
    pub fn len(&self) -> usize {
        self.kernel.len() + self.user.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame name without what would break a folded line (`;`, line ends) or an SVG (control characters). Symbol names are
/// written by whoever built the binary, and so are hostile.
pub fn clean(name: &str) -> String {
    const LONGEST: usize = 1024;
    // The last two are no control characters, and yet XML has none such.
    let fits = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut text: String = name.chars().filter(fits).map(|c| if c == ';' { ':' } else { c }).collect();
    if text.len() > LONGEST {
        let end = text.floor_char_boundary(LONGEST);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_cannot_break_a_line_or_a_graph() {
        assert_eq!(clean("a;b\nc\x1b[31m\0<x>"), "a:bc[31m<x>");
        assert!(clean(&"x".repeat(5000)).len() < 1100);
    }

    #[test]
    fn a_table_survives_its_own_json() {
        let mut names = Names::default();
        names.insert(Space::Kernel, 1, ["do_syscall_64".to_owned()]);
        names.insert(Space::User(Pid(7)), u64::MAX, ["main".to_owned(), "inlined".to_owned()]);
        let json = serde_json::to_vec(&names).unwrap();
        let back = serde_json::from_slice::<Names>(&json).unwrap();
        assert_eq!(back.get(Space::Kernel, 1), names.get(Space::Kernel, 1));
        assert_eq!(back.get(Space::User(Pid(7)), u64::MAX), names.get(Space::User(Pid(7)), u64::MAX));
        assert_eq!(serde_json::to_vec(&back).unwrap(), json);
    }
}
