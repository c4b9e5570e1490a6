//! Windows in, signals out: numbers with units, one statistic a file. Never reads a clock.
