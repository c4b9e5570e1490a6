//! Signals in, decisions out: pure functions of state, signals and time.
