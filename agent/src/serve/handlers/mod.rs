//! One function a route: a request that the table admitted in, an answer out. The newest view is all they know.

pub mod compare;
pub mod guidance;
pub mod host;
pub mod knobs;
pub mod owner;
pub mod pipelines;
pub mod profiles;
pub mod tuning;
pub mod watch;
