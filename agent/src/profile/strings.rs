//! A table of strings, each once; the first is the empty one, as protobuf profiles want it.

use std::collections::HashMap;

use foldhash::fast::RandomState;

#[derive(Debug)]
pub(super) struct Strings {
    index: HashMap<String, i32, RandomState>,
    list: Vec<String>,
}

impl Strings {
    pub(super) fn new() -> Self {
        let mut new = Self { index: HashMap::default(), list: Vec::new() };
        new.add("");
        new
    }

    /// The place of a text; that of the empty one when the table is full, which takes 2^31 names.
    pub(super) fn add(&mut self, text: &str) -> i32 {
        if let Some(known) = self.index.get(text) {
            return *known;
        }
        let Ok(next) = i32::try_from(self.list.len()) else { return 0 };
        self.index.insert(text.to_owned(), next);
        self.list.push(text.to_owned());
        next
    }

    pub(super) fn finish(self) -> Vec<String> {
        self.list
    }
}
