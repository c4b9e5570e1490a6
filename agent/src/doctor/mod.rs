//! The preflight: what this host allows, what is degraded, how to fix it.
