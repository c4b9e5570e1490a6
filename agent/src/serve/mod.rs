//! The control socket: what the agent shows, and the door for requests. Nothing here changes state upstream, except
//! that requests are appended to the source as `Input` records.

pub mod listing;
pub mod render;
pub mod view;
