//! The table of names: plain data, sorted, the same bytes for the same contents.
//!
//! Every name is kept once, and so is every chain of inlined functions: thousands of addresses of hundreds of processes
//! lie in the same few. An address costs twelve bytes and its place in a tree.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::Pid;

/// Whose address space an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The kernel.
    Kernel,
    /// A process.
    User(Pid),
}

/// Number of a chain of names, outermost of several inlined functions first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(u32);

/// Whether a name may still get better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is as good as it gets.
    Final,
    /// It stands in for one that could not be looked up now, and may be later.
    Provisional,
}

type Chain = Arc<[Arc<str>]>;
type Table = BTreeMap<u64, ChainId>;

/// Names of addresses, outermost of several inlined functions first.
#[derive(Clone, Debug, Default)]
pub struct Names {
    kernel: Table,
    user: BTreeMap<u32, Table>,
    provisional: BTreeSet<(Space, u64)>,
    chains: Vec<Chain>,
    chain_ids: HashMap<Chain, ChainId>,
    known: HashSet<Arc<str>>,
}

impl Names {
    /// Names of the functions at `address`, outermost first; `None` when it was never looked up.
    pub fn get(&self, space: Space, address: u64) -> Option<&[Arc<str>]> {
        let id = self.table(space)?.get(&address)?;
        self.chains.get(id.0 as usize).map(|chain| &**chain)
    }

    /// Whether `address` has a name that will not get better.
    pub fn is_final(&self, space: Space, address: u64) -> bool {
        self.table(space).is_some_and(|table| table.contains_key(&address))
            && !self.provisional.contains(&(space, address))
    }

    /// Notes the functions at `address`. Characters that no graph can carry are taken out here, once.
    pub fn insert(&mut self, space: Space, address: u64, frames: impl IntoIterator<Item = String>) {
        let chain = self.chain(frames);
        self.set(space, address, chain, Standing::Final);
    }

    /// The number of a chain of names.
    pub fn chain(&mut self, frames: impl IntoIterator<Item = String>) -> ChainId {
        let chain: Chain = frames.into_iter().map(|name| self.intern(&name)).collect();
        if let Some(id) = self.chain_ids.get(&chain) {
            return *id;
        }
        let id = ChainId(u32::try_from(self.chains.len()).expect("the table is emptied long before 2^32 chains"));
        self.chains.push(Arc::clone(&chain));
        self.chain_ids.insert(chain, id);
        id
    }

    /// Notes which functions are at `address`.
    pub fn set(&mut self, space: Space, address: u64, chain: ChainId, standing: Standing) {
        match standing {
            Standing::Final => self.provisional.remove(&(space, address)),
            Standing::Provisional => self.provisional.insert((space, address)),
        };
        let table = match space {
            Space::Kernel => &mut self.kernel,
            Space::User(pid) => self.user.entry(pid.0).or_default(),
        };
        table.insert(address, chain);
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

    fn table(&self, space: Space) -> Option<&Table> {
        match space {
            Space::Kernel => Some(&self.kernel),
            Space::User(pid) => self.user.get(&pid.0),
        }
    }

    /// Holds the names of a process for no more than what was known of it: it runs another program by now, or another
    /// process has its number. What is asked for again is looked up again; past samples keep their names.
    pub fn doubt(&mut self, pid: Pid) {
        let space = Space::User(pid);
        let addresses = self.user.get(&pid.0).into_iter().flat_map(BTreeMap::keys);
        self.provisional.extend(addresses.map(|address| (space, *address)));
    }

    /// Addresses noted.
    pub fn len(&self) -> usize {
        self.kernel.len() + self.user.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Chains of names noted.
    pub fn chains(&self) -> usize {
        self.chains.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// As it is written: addresses with their names, so that a recording can be read without this program.
impl Serialize for Names {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let user: BTreeMap<u32, Spelled<'_>> =
            self.user.iter().map(|(pid, table)| (*pid, Spelled { table, chains: &self.chains })).collect();
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("kernel", &Spelled { table: &self.kernel, chains: &self.chains })?;
        map.serialize_entry("user", &user)?;
        map.end()
    }
}

struct Spelled<'n> {
    table: &'n Table,
    chains: &'n [Chain],
}

impl Serialize for Spelled<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.table.iter().map(|(address, id)| (address, self.chains.get(id.0 as usize))))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            kernel: BTreeMap<u64, Vec<String>>,
            user: BTreeMap<u32, BTreeMap<u64, Vec<String>>>,
        }
        let Written { kernel, user } = Written::deserialize(from)?;
        let mut names = Self::default();
        for (address, frames) in kernel {
            names.insert(Space::Kernel, address, frames);
        }
        for (pid, table) in user {
            for (address, frames) in table {
                names.insert(Space::User(Pid(pid)), address, frames);
            }
        }
        Ok(names)
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
        assert_eq!(
            json,
            br#"{"kernel":{"1":["do_syscall_64"]},"user":{"7":{"18446744073709551615":["main","inlined"]}}}"#
        );
    }

    #[test]
    fn the_same_functions_are_kept_once_however_many_processes_run_them() {
        let mut names = Names::default();
        for pid in 0..500 {
            for address in 0..10 {
                names.insert(Space::User(Pid(pid)), address, ["main".to_owned(), "work".to_owned()]);
            }
        }
        assert_eq!((names.len(), names.chains()), (5000, 1));
    }

    #[test]
    fn a_stand_in_is_looked_up_again_and_a_name_is_not() {
        let (mut names, space) = (Names::default(), Space::User(Pid(1)));
        let stand_in = names.chain(["lib.so+0x10".to_owned()]);
        names.set(space, 5, stand_in, Standing::Provisional);
        assert!(names.get(space, 5).is_some() && !names.is_final(space, 5));
        names.insert(space, 5, ["work".to_owned()]);
        assert!(names.is_final(space, 5) && !names.is_final(space, 6));
        names.doubt(Pid(1));
        assert!(names.get(space, 5).is_some() && !names.is_final(space, 5));
    }
}
