//! Stack counts and names in, folded text, flame graphs and JSON out.
