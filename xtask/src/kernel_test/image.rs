//! The file system that a kernel is booted with: the agent, the libraries that it links, and a busybox to mount and to
//! power off. Takes files of this machine, writes one archive in the kernel's `newc` format.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{self, which};

pub(crate) const BUSYBOX: &str = "busybox";

/// What stands before and after the report on the serial line.
pub(crate) const BEGIN: &str = "TIDEGATE-REPORT-BEGIN";
pub(crate) const END: &str = "TIDEGATE-REPORT-END";

/// The first process: mounts what the agent looks at, lets it try everything, and powers off.
fn init() -> String {
    format!(
        "#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b mount -t tmpfs tmpfs /tmp
$b ip link set lo up
echo
echo {BEGIN}
/bin/tidegate doctor --try -o json
echo {END}
$b poweroff -f
"
    )
}

/// Writes the archive into `cache` and says where.
pub(crate) fn write(cache: &Path, tidegate: &Path) -> Result<PathBuf> {
    let lean = cache.join("tidegate");
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).arg(&lean).arg(tidegate);
    // Smaller boots faster, and symbols stay; where there is no `strip` the whole file does.
    let binary = if shell::capture(&mut strip).is_ok() { lean.as_path() } else { tidegate };
    let file = cache.join("initramfs.cpio");
    let out = fs::File::create(&file).with_context(|| format!("create {}", file.display()))?;
    let mut archive = Archive { out: io::BufWriter::new(out), inode: 0, at: 0 };
    let pack = || -> Result<()> {
        for folder in ["bin", "proc", "sys", "dev", "tmp", "run"] {
            archive.folder(folder)?;
        }
        archive.file("init", init().as_bytes())?;
        let busybox = which(BUSYBOX).context("no busybox")?;
        for (name, source) in [("bin/busybox", busybox.as_path()), ("bin/tidegate", binary)] {
            archive.file(name, &fs::read(source).with_context(|| format!("read {}", source.display()))?)?;
        }
        let mut folders = std::collections::BTreeSet::new();
        for library in libraries(binary)? {
            let inside = library.to_string_lossy().trim_start_matches('/').to_owned();
            for folder in Path::new(&inside).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                let folder = folder.to_string_lossy().into_owned();
                if !folder.is_empty() && folders.insert(folder.clone()) {
                    archive.folder(&folder)?;
                }
            }
            archive.file(&inside, &fs::read(&library).with_context(|| format!("read {}", library.display()))?)?;
        }
        archive.finish()?;
        Ok(())
    };
    pack().with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// The libraries that a binary links, under the paths by which the loader looks for them.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let text = shell::capture(Command::new("ldd").arg(binary))?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}

/// An archive under construction.
struct Archive<W> {
    out: W,
    inode: u32,
    at: usize,
}

const FILE: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;

impl<W: Write> Archive<W> {
    fn folder(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, FOLDER, &[])
    }

    fn file(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.entry(name, FILE, content)
    }

    fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }

    /// Thirteen numbers of eight hexadecimal digits after the magic one, then the name, then the content, each of the
    /// two filled up to a multiple of four.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let too_long = |_| io::Error::other(format!("{name} is too long for the archive"));
        let length = u32::try_from(content.len()).map_err(too_long)?;
        let name_length = u32::try_from(name.len() + 1).map_err(too_long)?;
        let (owner, links, time, device, check) = (0, 1, 0, 0, 0);
        let numbers =
            [self.inode, mode, owner, owner, links, time, length, device, device, device, device, name_length, check];
        self.put(b"070701")?;
        for number in numbers {
            self.put(format!("{number:08X}").as_bytes())?;
        }
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.fill()?;
        self.put(content)?;
        self.fill()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        let missing = self.at.next_multiple_of(4) - self.at;
        self.put(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_begins_and_ends_at_a_multiple_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive { out: &mut bytes, inode: 0, at: 0 };
        archive.folder("bin").unwrap();
        archive.file("bin/x", b"12345").unwrap();
        archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let places: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(places, [0, 116, 116 + 116 + 8]);
        assert_eq!(&text[116 + 54..116 + 62], "00000005", "the length of the content");
        assert!(bytes.len().is_multiple_of(4));
    }
}
