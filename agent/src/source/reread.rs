//! A small text file of the kernel's that is read again at every tick: kept open, and read anew from its beginning by one
//! system call where opening, reading and closing take four. Never keeps what it said.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The files that are read so have some hundred bytes at most; a longer one is refused.
pub(super) const LONGEST: usize = 4_096;

/// One file.
#[derive(Debug)]
pub(super) struct Reread(File);

impl Reread {
    pub(super) fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// What it says now. A file of a process or a cgroup that has gone fails with `ESRCH` or `ENODEV`, whoever has its number
    /// by then.
    pub(super) fn text<'a>(&self, room: &'a mut [u8; LONGEST]) -> io::Result<&'a str> {
        let length = self.0.read_at(room, 0)?;
        // A text that fills the room may go on behind it.
        let whole = room.get(..length).filter(|_| length < LONGEST);
        whole
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_says_what_it_says_now_and_never_a_part_of_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let reread = Reread::open(file.path()).unwrap();
        let mut room = [0; LONGEST];
        assert_eq!(reread.text(&mut room).unwrap(), "");
        file.write_all(b"some 1\n").unwrap();
        assert_eq!(reread.text(&mut room).unwrap(), "some 1\n");
        file.write_all(&[b'x'; LONGEST]).unwrap();
        assert!(reread.text(&mut room).is_err(), "a part was taken for the whole");
    }

    #[test]
    fn the_kernels_files_are_whole_in_one_read() {
        let mut room = [0; LONGEST];
        for path in ["/proc/self/statm", "/proc/self/schedstat"] {
            let reread = Reread::open(path).unwrap();
            for _ in 0..2 {
                assert!(reread.text(&mut room).unwrap().ends_with('\n'), "{path}");
            }
        }
    }
}
