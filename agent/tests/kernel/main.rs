//! Tests against the running kernel; they need root and say so when they are skipped.

fn main() {}
