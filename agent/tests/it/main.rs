//! Integration tests.

mod cli;
mod config;
mod control;
mod history;
mod profile_diff;
mod profile_kit;
mod profile_readers;
mod replay;
mod sdk;
mod serve_agent;
mod serve_kit;
mod serve_limits;
mod serve_listener;
mod serve_profiles;
mod serve_roles;
mod serve_routes;
mod serve_stream;
mod serve_watch;
mod serve_watched;
mod simulate;
mod symbolize_hostile;
mod symbolize_kit;
mod symbolize_names;
