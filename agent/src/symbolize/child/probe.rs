//! What a confined process can still do: one forbidden act in, what became of it out. It proves the sandbox on the kernel
//! that it runs on, one layer at a time.

use std::io;
use std::net::TcpStream;
use std::process::Command;

use super::sandbox::{Layers, enter};

/// Something that a symbolizer must not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attempt {
    /// Nothing: it stays as it is and waits, to be looked at.
    Wait,
    /// Open a file that anybody may read.
    Open,
    /// Connect to a port of this host.
    Connect,
    /// Start a program.
    Spawn,
    /// Start a thread.
    Thread,
    /// Write to a descriptor.
    Write,
    /// Take memory without end.
    Memory,
}

/// Confines this process and tries it. Returns what was refused; the filter of system calls ends the process instead.
pub fn attempt(what: Attempt, with_filter: bool) -> Result<(), String> {
    let layers = if with_filter { Layers::All } else { Layers::WithoutFilter };
    enter(layers).map_err(|why| why.to_string())?;
    let done: io::Result<()> = match what {
        Attempt::Wait => loop {
            // Ends with whoever looks at it.
            let mut byte = [0];
            if rustix::io::read(std::io::stdin(), &mut byte).map_or(true, |n| n == 0) {
                return Ok(());
            }
        },
        Attempt::Open => std::fs::read("/etc/hostname").map(drop),
        Attempt::Connect => TcpStream::connect("127.0.0.1:9").map(drop),
        Attempt::Spawn => Command::new("/bin/true").status().map(drop),
        Attempt::Thread => std::thread::Builder::new().spawn(|| {}).map(drop),
        Attempt::Write => rustix::io::write(std::io::stdout(), b"x").map(drop).map_err(Into::into),
        Attempt::Memory => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                let mut more = Vec::new();
                if more.try_reserve_exact(64 << 20).is_err() {
                    break Err(io::Error::from(io::ErrorKind::OutOfMemory));
                }
                held.push(more);
            }
        }
    };
    done.map_err(|why| why.to_string())
}
