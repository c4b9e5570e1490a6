//! The control socket: what the agent shows, and the door for requests. Nothing here changes state upstream, except
//! that requests are appended to the source as `Input` records.

pub mod accept;
pub mod app;
pub mod archive;
pub mod body;
pub mod check;
pub mod claims;
pub mod compare;
pub mod etag;
pub mod feeds;
pub mod filter;
pub mod groups;
pub mod guidance;
pub mod handlers;
pub mod labels;
pub mod listener;
pub mod listing;
pub mod losses;
pub mod metrics;
pub mod pages;
pub mod peer;
pub mod problem;
pub mod query;
pub mod render;
pub mod reply;
pub mod routes;
pub mod span;
pub mod stream;
pub mod validate;
pub mod view;
pub mod watched;
pub mod watchers;
mod windows;
mod wire;
