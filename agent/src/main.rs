//! The binary: parses and calls.
#[derive(clap::Parser)]
enum C {
    Syscalls(tidegate::cli::syscalls::SyscallsArgs),
    Sockets(tidegate::cli::sockets::SocketsArgs),
}
fn main() -> anyhow::Result<()> {
    match <C as clap::Parser>::parse() {
        C::Syscalls(a) => tidegate::cli::syscalls::run(&a),
        C::Sockets(a) => tidegate::cli::sockets::run(&a),
    }
}
