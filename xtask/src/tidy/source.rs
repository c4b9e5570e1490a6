//! A Rust file as the rules see it: every path that it names, with its line, its module and whether that is test code.
//! Lexed, not searched: comments and strings name nothing, bodies of macros do. Never judges.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};

/// One file.
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) lines: usize,
    pub(crate) mentions: Vec<Mention>,
    /// Lines of attributes that silence a lint without a check that it still fires.
    pub(crate) silenced: Vec<usize>,
    /// Lines of numbers with a point or an exponent.
    pub(crate) floats: Vec<usize>,
    /// Modules in files of their own that this file declares as test code.
    pub(crate) test_modules: Vec<Vec<String>>,
}

/// A path, or a single name, as it stands in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Module that it stands in, from the root of the crate.
    pub(crate) module: Vec<String>,
    pub(crate) zone: Zone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    Code,
    Test,
}

impl Source {
    pub(crate) fn parse(file: &str, content: &str) -> Result<Self> {
        let tokens: TokenStream = content.parse().map_err(|error| anyhow!("{error}"))?;
        let mut source = Self {
            file: file.to_owned(),
            lines: content.lines().count(),
            mentions: Vec::new(),
            silenced: Vec::new(),
            floats: Vec::new(),
            test_modules: Vec::new(),
        };
        source.walk(tokens, &Place { module: module_of(file), zone: zone_of(file) });
        Ok(source)
    }

    fn walk(&mut self, tokens: TokenStream, place: &Place) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut next_item = place.zone;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let bang = usize::from(is_punct(tokens.get(at + 1), '!'));
                    if let Some(TokenTree::Group(group)) = tokens.get(at + 1 + bang)
                        && group.delimiter() == Delimiter::Bracket
                    {
                        if silences(group.stream()) {
                            self.silenced.push(group.span_open().start().line);
                        }
                        if marks_test(group.stream()) {
                            next_item = Zone::Test;
                        }
                        self.walk(group.stream(), place);
                        at += 2 + bang;
                        continue;
                    }
                }
                TokenTree::Ident(ident) if ident == "mod" => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                        let module = [place.module.as_slice(), &[name.to_string()]].concat();
                        if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                            self.walk(body.stream(), &Place { module, zone: next_item });
                            at += 1;
                        } else if next_item == Zone::Test {
                            self.test_modules.push(module);
                        }
                        at += 2;
                        next_item = place.zone;
                        continue;
                    }
                }
                TokenTree::Ident(ident) => {
                    let zone = next_item;
                    if ident != "pub" {
                        next_item = place.zone;
                    }
                    at = self.path(&tokens, at, &[], &Place { module: place.module.clone(), zone });
                    continue;
                }
                TokenTree::Group(group) => self.walk(group.stream(), place),
                TokenTree::Literal(literal) => {
                    if is_float(&literal.to_string()) {
                        self.floats.push(literal.span().start().line);
                    }
                }
                TokenTree::Punct(_) => {}
            }
            at += 1;
        }
    }

    /// Takes in the path that starts at `at`; gives the place behind it.
    fn path(&mut self, tokens: &[TokenTree], at: usize, prefix: &[String], place: &Place) -> usize {
        let mut segments = prefix.to_vec();
        let mut at = at;
        let mut line = 0;
        while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
            line = ident.span().start().line;
            segments.push(plain(ident));
            at += 1;
            if !is_joint_colons(tokens, at) {
                break;
            }
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(_)) => at += 2,
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.tree(group.stream(), &segments, place);
                    return at + 3;
                }
                _ => break,
            }
        }
        self.mentions.push(Mention { segments, line, module: place.module.clone(), zone: place.zone });
        at
    }

    /// The braces of a `use`: one path an element, each with what stands before the braces.
    fn tree(&mut self, tokens: TokenStream, prefix: &[String], place: &Place) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for element in tokens.split(|token| is_punct(Some(token), ',')) {
            if !element.is_empty() {
                self.path(element, 0, prefix, place);
            }
        }
    }
}

struct Place {
    module: Vec<String>,
    zone: Zone,
}

impl Mention {
    /// The path from the root of the crate, for one that leads into the crate itself.
    pub(crate) fn inside_crate(&self, crate_name: &str) -> Option<Vec<String>> {
        let (first, mut rest) = self.segments.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" if !rest.is_empty() => Some([&self.module, rest].concat()),
            "super" => {
                let mut depth = self.module.len().checked_sub(1)?;
                while let Some(("super", deeper)) = rest.split_first().map(|(first, deeper)| (first.as_str(), deeper)) {
                    depth = depth.checked_sub(1)?;
                    rest = deeper;
                }
                Some([&self.module[..depth], rest].concat())
            }
            name if name == crate_name && !rest.is_empty() => Some(rest.to_vec()),
            _ => None,
        }
    }
}

/// Module that a file holds: `agent/src/source/ebpf.rs` is `source::ebpf`.
fn module_of(file: &str) -> Vec<String> {
    let inner = file.split_once("/src/").map_or(file, |(_, inner)| inner);
    let mut module: Vec<String> = inner.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod")
        || module.len() == 1 && module.first().is_some_and(|first| first == "lib")
    {
        module.pop();
    }
    module
}

fn zone_of(file: &str) -> Zone {
    if file.contains("/tests/") || file.contains("/benches/") { Zone::Test } else { Zone::Code }
}

fn plain(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map_or(name.clone(), str::to_owned)
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_joint_colons(tokens: &[TokenTree], at: usize) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint)
        && is_punct(tokens.get(at + 1), ':')
}

/// Whether an attribute is `allow(…)`, on its own or behind a condition.
fn silences(attribute: TokenStream) -> bool {
    called(attribute, "allow", &mut |_| true)
}

/// Whether an attribute is `test`, or a condition that names `test` without turning it round.
fn marks_test(attribute: TokenStream) -> bool {
    let first = attribute.clone().into_iter().next();
    let conditional = called(attribute, "cfg", &mut |inner| {
        let words: Vec<String> = inner.into_iter().map(|token| token.to_string()).collect();
        words.iter().any(|word| word == "test" || word.contains("(test")) && !words.iter().any(|word| word == "not")
    });
    conditional || matches!(first, Some(TokenTree::Ident(ident)) if ident == "test")
}

/// Whether `name(…)` stands anywhere in the tokens with an argument that passes.
fn called(tokens: TokenStream, name: &str, passes: &mut dyn FnMut(TokenStream) -> bool) -> bool {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Ident(ident) if ident == name => {
            matches!(tokens.get(at + 1), Some(TokenTree::Group(group)) if passes(group.stream()))
        }
        TokenTree::Group(group) => called(group.stream(), name, passes),
        _ => false,
    })
}

fn is_float(literal: &str) -> bool {
    let number = literal.starts_with(|first: char| first.is_ascii_digit()) && !literal.starts_with("0x");
    number && (literal.contains('.') || literal.contains("f32") || literal.contains("f64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(content: &str) -> Vec<String> {
        let source = Source::parse("agent/src/serve/routes.rs", content).expect("it is Rust");
        source.mentions.iter().map(|mention| mention.segments.join("::")).filter(|name| name.contains("::")).collect()
    }

    #[test]
    fn nested_groups_are_taken_apart() {
        let found = names("use crate::{units::{Nanos, Pid as P}, event}; use std::fs::{self};");
        assert_eq!(found, ["crate::units::Nanos", "crate::units::Pid", "crate::event", "std::fs::self"]);
    }

    #[test]
    fn inline_paths_and_macro_bodies_count_and_comments_do_not() {
        let found = names("// crate::no\nfn f() -> crate::a::B { format!(\"{} crate::no\", crate::c::d()) }");
        assert_eq!(found, ["crate::a::B", "crate::c::d"]);
    }

    #[test]
    fn a_path_from_the_parent_is_resolved() {
        let source =
            Source::parse("agent/src/serve/routes.rs", "mod t { use super::super::view::View; use self::x::y; }")
                .expect("it is Rust");
        let inside: Vec<_> = source.mentions.iter().filter_map(|mention| mention.inside_crate("tidegate")).collect();
        assert_eq!(inside[0], ["serve", "view", "View"]);
        assert_eq!(inside[1], ["serve", "routes", "t", "x", "y"]);
    }

    #[test]
    fn test_modules_are_told_from_code() {
        let content =
            "use a::b; #[cfg(test)] mod tests { use c::d; } #[cfg(not(test))] use e::f; #[cfg(test)] mod far;";
        let source = Source::parse("agent/src/units.rs", content).expect("it is Rust");
        let zone = |name: &str| source.mentions.iter().find(|m| m.segments.join("::") == name).map(|m| m.zone);
        assert_eq!((zone("a::b"), zone("c::d"), zone("e::f")), (Some(Zone::Code), Some(Zone::Test), Some(Zone::Code)));
        assert_eq!(source.test_modules, [["units", "far"]]);
    }
}
