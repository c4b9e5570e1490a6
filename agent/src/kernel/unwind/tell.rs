//! Who has been told where code of a process is mapped: processes in, the mappings that were not told yet out. A process
//! that ends within a tick is named by what is told here; it never looks at one.

use std::collections::HashMap;
use std::sync::Arc;

use super::files::{Files, Seat};
use super::spaces::{Code, Mapping};
use super::tracker::Tracker;
use crate::event;
use crate::units::{Nanos, Pid};

/// What was told last of each process.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<u32, Arc<Vec<Mapping>>>);

impl Told {
    /// Nobody needs to be told these: they can be read where the process lives, and it has lived for a while.
    pub(super) fn is_known(&mut self, pid: u32, mappings: &Arc<Vec<Mapping>>) {
        self.0.insert(pid, Arc::clone(mappings));
    }

    /// What is told of a process with this number from now on is told of another one.
    pub(super) fn forget(&mut self, pid: u32) {
        self.0.remove(&pid);
    }

    /// Mappings that were not among those told last.
    fn news(&mut self, pid: u32, mappings: &Arc<Vec<Mapping>>) -> Vec<Mapping> {
        let before = self.0.get(&pid);
        if before.is_some_and(|before| Arc::ptr_eq(before, mappings)) {
            return Vec::new();
        }
        let is_old = |mapping: &Mapping| {
            before.is_some_and(|before| {
                let at = before.partition_point(|m| m.begin < mapping.begin);
                before.get(at) == Some(mapping)
            })
        };
        let news = mappings.iter().filter(|mapping| !is_old(mapping)).copied().collect();
        self.0.insert(pid, Arc::clone(mappings));
        news
    }
}

impl Tracker {
    /// Where code of `pid` was mapped at `time`, as far as it was not told before.
    pub fn untold(&mut self, pid: u32, time: Nanos) -> Vec<event::Mapping> {
        let Some(mappings) = self.spaces.at(pid, time) else { return Vec::new() };
        let news = self.told.news(pid, mappings);
        news.iter().filter_map(|mapping| as_event(&self.files, pid, mapping)).collect()
    }
}

fn as_event(files: &Files, pid: u32, mapping: &Mapping) -> Option<event::Mapping> {
    let Mapping { begin, end, offset, code } = *mapping;
    let nowhere = Seat { device: 0, inode: 0 };
    let (path, Seat { device, inode }, offset) = match code {
        Code::Anonymous => ("", nowhere, 0),
        // One that is known no more is no memory either.
        Code::File(file) => {
            let (path, seat) = files.seat(file)?;
            (path, seat, if seat == nowhere { 0 } else { offset })
        }
    };
    let (build_id, path) = (Box::default(), path.as_bytes().into());
    Some(event::Mapping { pid: Pid(pid), begin, end, offset, dev: device, inode, build_id, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(begin: u64, file: u32) -> Mapping {
        Mapping { begin, end: begin + 5, offset: 0, code: Code::File(file) }
    }

    #[test]
    fn each_mapping_of_a_process_is_told_once_and_those_of_the_next_with_its_number_again() {
        let mut told = Told::default();
        let first = Arc::new(vec![mapping(10, 0), mapping(20, 1)]);
        assert_eq!(told.news(7, &first), *first);
        assert_eq!(told.news(7, &first), []);
        let more = Arc::new(vec![mapping(10, 0), mapping(15, 2), mapping(20, 1)]);
        assert_eq!(told.news(7, &more), [mapping(15, 2)]);
        assert_eq!(told.news(7, &Arc::new(vec![mapping(20, 3)])), [mapping(20, 3)], "another file at the same place");
        assert_eq!(told.news(8, &first), *first);
        told.forget(7);
        assert_eq!(told.news(7, &more), *more);
        told.is_known(9, &more);
        assert_eq!(told.news(9, &more), []);
    }
}
