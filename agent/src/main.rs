//! The binary: parses and calls.

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
