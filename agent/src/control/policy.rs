//! Policies: what the settings should be, before any limit. A policy proposes; the governor decides how far to go.

pub mod regime;
