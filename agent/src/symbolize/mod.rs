//! Addresses in, names out.
