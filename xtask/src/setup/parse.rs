//! What compilers, apt and the linker say, read into facts. Takes text or bytes; never runs anything.

/// Major version of an LLVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Llvm(pub(crate) u32);

/// A compiler as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// `1.97.0-nightly`
    pub(crate) release: String,
    pub(crate) llvm: Llvm,
}

impl Compiler {
    /// Whether it takes `-Z` without being told to.
    pub(crate) fn is_nightly(&self) -> bool {
        self.release.ends_with("-nightly") || self.release.ends_with("-dev")
    }
}

/// Reads `rustc -vV`.
pub(crate) fn compiler(text: &str) -> Option<Compiler> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some(Compiler { release: field("release:")?.to_owned(), llvm: Llvm(llvm) })
}

/// Reads `rustup toolchain list`: names without the notes behind them.
pub(crate) fn toolchains(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Reads `apt-cache policy PACKAGE`: the version that would be installed, if any would.
pub(crate) fn candidate(text: &str) -> Option<String> {
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then(|| version.to_owned())
}

/// The LLVM that a program is linked with, from the name of the library that stands in the file itself:
/// `libLLVM.so.22.1` (since LLVM 18) or `libLLVM-17.so`. Nothing for a static link.
pub(crate) fn linked_llvm(file: &[u8]) -> Option<Llvm> {
    [b"libLLVM.so.".as_slice(), b"libLLVM-"].iter().find_map(|name| {
        file.windows(name.len()).enumerate().filter(|(_, window)| window == name).find_map(|(at, _)| {
            let digits: String = file[at + name.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .map(|&byte| char::from(byte))
                .collect();
            digits.parse().ok().map(Llvm)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nightly_is_told_from_a_stable_compiler_and_its_llvm_is_read() {
        let nightly = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nrelease: 1.97.0-nightly\n\
                       LLVM version: 22.1.4\n";
        let read = compiler(nightly).expect("it is whole");
        assert_eq!((read.llvm, read.is_nightly()), (Llvm(22), true));
        let stable = compiler("release: 1.96.0\nLLVM version: 22.1\n").expect("it is whole");
        assert!(!stable.is_nightly());
        assert_eq!(compiler("release: 1.96.0\n"), None, "a compiler without LLVM is no use here");
    }

    #[test]
    fn toolchain_names_lose_the_notes_behind_them() {
        let list = "stable-x86_64-unknown-linux-gnu (default)\nnightly-x86_64-unknown-linux-gnu\n1.95.0 (active)\n";
        assert_eq!(toolchains(list), ["stable-x86_64-unknown-linux-gnu", "nightly-x86_64-unknown-linux-gnu", "1.95.0"]);
    }

    #[test]
    fn a_package_without_candidate_cannot_be_had() {
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: 1:22.1.8-1\n").as_deref(), Some("1:22.1.8-1"));
        assert_eq!(candidate(""), None, "apt says nothing about a name that it never heard");
    }

    #[test]
    fn the_linked_llvm_is_read_from_the_file() {
        assert_eq!(linked_llvm(b"\0libc.so.6\0libLLVM.so.22.1\0"), Some(Llvm(22)));
        assert_eq!(linked_llvm(b"..libLLVM-x libLLVM-17.so.1"), Some(Llvm(17)));
        assert_eq!(linked_llvm(b"static"), None);
    }
}
