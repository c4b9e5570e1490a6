//! The live source.
