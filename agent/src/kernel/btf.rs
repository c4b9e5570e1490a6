//! A walker over BTF, the kernel's description of its own types: a path such as `sock.__sk_common.skc_family` in, the
//! byte offset out.
//!
//! Just enough of the format to find members, through anonymous structs and unions; every read is bounded, because the
//! bytes may come from a file. Format: Linux `Documentation/bpf/btf.rst`.

use std::collections::{BTreeSet, HashMap};

/// Why BTF could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// The bytes are no BTF, or are cut short.
    #[error("BTF is damaged at byte {at}: {what}")]
    Damaged {
        /// Offset.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
}

/// A parsed BTF blob.
#[derive(Debug)]
pub struct Btf {
    types: Vec<Type>,
    by_name: HashMap<String, Vec<usize>>,
}

#[derive(Debug)]
struct Type {
    kind: u32,
    name: String,
    /// Size of a struct, or the type that a modifier points to.
    size_or_target: u32,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    of_type: u32,
    bit_offset: u32,
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
    pub(super) const MAX: u32 = 19;
}

const MAGIC: u16 = 0xeb9f;
/// Anonymous members and modifiers are followed this deep; real ones stay under ten.
const MAX_DEPTH: u32 = 32;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u32(&mut self) -> Result<u32, BtfError> {
        let word = self.bytes.get(self.at..).and_then(|b| b.first_chunk::<4>());
        let word = word.ok_or(BtfError::Damaged { at: self.at, what: "four more bytes" })?;
        self.at += 4;
        Ok(u32::from_ne_bytes(*word))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), BtfError> {
        self.at = self
            .at
            .checked_add(bytes)
            .filter(|at| *at <= self.bytes.len())
            .ok_or(BtfError::Damaged { at: self.at, what: "a type that ends inside the section" })?;
        Ok(())
    }
}

impl Btf {
    /// Parses a blob such as `/sys/kernel/btf/vmlinux`.
    pub fn parse(blob: &[u8]) -> Result<Self, BtfError> {
        let damaged = |at, what| BtfError::Damaged { at, what };
        let mut head = Reader { bytes: blob, at: 0 };
        let magic = head.u32()? & 0xffff;
        if magic != u32::from(MAGIC) {
            return Err(damaged(0, "the magic number of BTF in this host's byte order"));
        }
        let header_len = head.u32()? as usize;
        let (type_off, type_len) = (head.u32()? as usize, head.u32()? as usize);
        let (str_off, str_len) = (head.u32()? as usize, head.u32()? as usize);
        let section = |offset: usize, length: usize| {
            let start = header_len.checked_add(offset)?;
            blob.get(start..start.checked_add(length)?)
        };
        let types = section(type_off, type_len).ok_or(damaged(8, "a type section inside the blob"))?;
        let strings = section(str_off, str_len).ok_or(damaged(16, "a string section inside the blob"))?;
        let text = |offset: u32| -> String {
            let rest = strings.get(offset as usize..).unwrap_or_default();
            let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
            String::from_utf8_lossy(&rest[..end]).into_owned()
        };
        Self::types(types, text)
    }

    fn types(section: &[u8], text: impl Fn(u32) -> String) -> Result<Self, BtfError> {
        let mut reader = Reader { bytes: section, at: 0 };
        // Type ids start at 1; 0 is void.
        let mut types = vec![Type { kind: 0, name: String::new(), size_or_target: 0, members: Vec::new() }];
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        while reader.at < section.len() {
            let (name, info, size_or_target) = (reader.u32()?, reader.u32()?, reader.u32()?);
            let (vlen, kind, flag) = ((info & 0xffff) as usize, (info >> 24) & 0x1f, info >> 31);
            let mut members = Vec::new();
            match kind {
                kind::STRUCT | kind::UNION => {
                    for _ in 0..vlen {
                        let (name, of_type, offset) = (reader.u32()?, reader.u32()?, reader.u32()?);
                        // With the flag set the upper byte holds the width of a bit-field.
                        let bit_offset = if flag == 1 { offset & 0x00ff_ffff } else { offset };
                        members.push(Member { name: text(name), of_type, bit_offset });
                    }
                }
                kind::INT | kind::VAR | kind::DECL_TAG => reader.skip(4)?,
                kind::ARRAY => reader.skip(12)?,
                kind::ENUM | kind::FUNC_PROTO => reader.skip(vlen * 8)?,
                kind::DATASEC | kind::ENUM64 => reader.skip(vlen * 12)?,
                0 => return Err(BtfError::Damaged { at: reader.at, what: "a type kind" }),
                unknown if unknown > kind::MAX => {
                    return Err(BtfError::Damaged { at: reader.at, what: "a type kind that this version knows" });
                }
                _ => {}
            }
            let name = text(name);
            if !name.is_empty() {
                by_name.entry(name.clone()).or_default().push(types.len());
            }
            types.push(Type { kind, name, size_or_target, members });
        }
        Ok(Self { types, by_name })
    }

    /// Byte offset of a member: `struct.member` or `struct.member.member`. `None` when there is no such struct or
    /// member, or when the member is a bit-field that starts inside a byte.
    pub fn offset_of(&self, path: &str) -> Option<u32> {
        let mut parts = path.split('.');
        let owner = parts.next()?;
        let members: Vec<&str> = parts.collect();
        self.by_name.get(owner)?.iter().find_map(|id| {
            let bits = self.walk(*id, &members, 0)?;
            (bits % 8 == 0).then_some(bits / 8)
        })
    }

    /// Names of all tracepoints: BTF keeps the prototype of each as `btf_trace_NAME`.
    pub fn tracepoints(&self) -> BTreeSet<Box<str>> {
        let typedefs = self.types.iter().filter(|t| t.kind == kind::TYPEDEF);
        typedefs.filter_map(|t| t.name.strip_prefix("btf_trace_")).map(Into::into).collect()
    }

    fn walk(&self, id: usize, path: &[&str], depth: u32) -> Option<u32> {
        let [wanted, rest @ ..] = path else { return Some(0) };
        let owner = self.resolve(id)?;
        if depth > MAX_DEPTH || !matches!(owner.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        owner.members.iter().find_map(|member| {
            let inner = if member.name == *wanted {
                self.walk(member.of_type as usize, rest, depth + 1)
            } else if member.name.is_empty() {
                self.walk(member.of_type as usize, path, depth + 1)
            } else {
                None
            };
            inner?.checked_add(member.bit_offset)
        })
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, id: usize) -> Option<&Type> {
        let mut found = self.types.get(id)?;
        for _ in 0..MAX_DEPTH {
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    found = self.types.get(found.size_or_target as usize)?;
                }
                _ => return Some(found),
            }
        }
        None
    }

    /// Names of all structs, for diagnostics and tests.
    pub fn structs(&self) -> impl Iterator<Item = &str> {
        self.types.iter().filter(|t| t.kind == kind::STRUCT).map(|t| t.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// struct inner { u32 a; }; struct outer { u64 pad; union { struct inner x; u32 y; }; };
    fn sample() -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut name = |s: &str| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.extend_from_slice(s.as_bytes());
            strings.push(0);
            at
        };
        let (int, inner, outer, a, pad, x, y) =
            (name("u32"), name("inner"), name("outer"), name("a"), name("pad"), name("x"), name("y"));
        let trace = name("btf_trace_sys_enter");
        let info = |kind: u32, vlen: u32| kind << 24 | vlen;
        let words: Vec<u32> = [
            vec![int, info(kind::INT, 0), 4, 32],                        // 1
            vec![inner, info(kind::STRUCT, 1), 4, a, 1, 0],              // 2
            vec![0, info(kind::UNION, 2), 4, x, 2, 0, y, 1, 0],          // 3
            vec![outer, info(kind::STRUCT, 2), 16, pad, 1, 0, 0, 3, 64], // 4
            vec![trace, info(kind::TYPEDEF, 0), 1],                      // 5
        ]
        .concat();
        let types: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let (tl, sl) = (u32::try_from(types.len()).unwrap(), u32::try_from(strings.len()).unwrap());
        let mut blob = Vec::new();
        blob.extend_from_slice(&MAGIC.to_ne_bytes());
        blob.extend_from_slice(&[1, 0]);
        for word in [24, 0, tl, tl, sl] {
            blob.extend_from_slice(&word.to_ne_bytes());
        }
        blob.extend_from_slice(&types);
        blob.extend_from_slice(&strings);
        blob
    }

    #[test]
    fn members_are_found_through_anonymous_unions() {
        let btf = Btf::parse(&sample()).unwrap();
        assert_eq!(btf.offset_of("outer.x.a"), Some(8));
        assert_eq!(btf.offset_of("outer.y"), Some(8));
        assert_eq!(btf.offset_of("outer.pad"), Some(0));
        assert_eq!(btf.offset_of("outer.z"), None);
        assert_eq!(btf.offset_of("nobody.x"), None);
        assert_eq!(btf.tracepoints(), ["sys_enter".into()].into());
    }

    proptest! {
        #[test]
        fn damaged_blobs_give_an_error_or_a_smaller_truth_but_never_a_panic(at in 0_usize..200, byte: u8, cut in 0_usize..200) {
            let mut blob = sample();
            let len = blob.len();
            blob[at % len] = byte;
            blob.truncate(len - cut % len);
            if let Ok(btf) = Btf::parse(&blob) {
                let _found = btf.offset_of("outer.x.a");
            }
        }
    }
}
