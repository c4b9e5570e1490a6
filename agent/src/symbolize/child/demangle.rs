//! Names as the linker knows them in, as their authors wrote them out. A name that is not mangled, or badly, stays.

/// Longer names are left as they are: unfolding one can take time and memory out of all proportion.
const LONGEST: usize = 8192;

pub(super) fn demangle(name: &str) -> String {
    if name.len() > LONGEST {
        return name.to_owned();
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // Without the hash: the same function has the same name in every build.
        return format!("{rust:#}");
    }
    if name.starts_with("_Z") || name.starts_with("__Z") {
        // What the compiler split off, `.cold` or `.part.0`, keeps its tail.
        let (stem, tail) = name.split_at(name.find('.').unwrap_or(name.len()));
        let plain = cpp_demangle::Symbol::new(stem).ok().and_then(|symbol| symbol.demangle().ok());
        if let Some(plain) = plain {
            return plain + tail;
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_read_as_they_were_written() {
        for (mangled, plain) in [
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvC7mycrate3foo", "mycrate::foo"),
            ("_ZN5outer5innerEi", "outer::inner(int)"),
            ("_ZN5outer5innerEi.cold", "outer::inner(int).cold"),
            ("main", "main"),
            ("_Zbroken", "_Zbroken"),
        ] {
            assert_eq!(demangle(mangled), plain);
        }
    }
}
