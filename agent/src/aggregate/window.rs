//! Tick windows: cumulative counters and reports in, deltas of one tick out.
