//! Join a batching pipeline to tidegate in at most ten lines.
//!
//! A pipeline that batches names its two knobs (batch size and flush interval), their bounds and its own values for them.
//! From then on it runs on the settings that the agent finds right for its present load. Without an agent everything
//! here runs on the pipeline's own settings, and connects when an agent appears; when the agent dies, the last settings
//! are held for the time of the lease and then given up for the pipeline's own. No call here blocks on the agent or fails
//! because of it.
//!
//! ```
//! use tidegate_client::abi::{Knobs, Mode, Registration};
//! use tidegate_client::{Batcher, Bytes, Options, ReportPage, Tuner};
//!
//! # fn write(_batch: &[String]) -> std::io::Result<()> { Ok(()) }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! let report = ReportPage::create(directory, "ingest")?;
//! let path = Some(report.path().to_owned());
//! let registration = Registration { mode: Mode::On, report: path, ..Registration::new(Knobs::default()) };
//! let tuner = Tuner::register("ingest", registration)?;
//! let batcher = Batcher::new(Options { report: Some(report), ..Options::tuned(tuner) })?;
//!
//! std::thread::scope(|threads| {
//!     threads.spawn(|| {
//!         while let Some(batch) = batcher.next_batch() {
//!             write(batch.items()).expect("an example's sink takes everything");
//!             batch.acknowledge();
//!         }
//!     });
//!     batcher.push("an event".to_owned(), Bytes(8)).expect("the batcher is still open");
//!     batcher.close();
//! });
//! # Ok(())
//! # }
//! ```
//!
//! A pipeline with a queue of its own uses [`Tuner`] alone: `tuner.settings()` costs a few nanoseconds and may be asked
//! for every event. One that only wants the rule uses [`rule`].

#![deny(unsafe_code)]

pub mod abi;
pub mod batcher;
pub mod clock;
pub mod contact;
pub mod lease;
#[expect(unsafe_code, reason = "a page shared with another process is mapped memory")]
pub mod page;
pub mod pool;
pub mod report;
pub mod rule;
pub mod settings;
pub mod tuner;
pub mod units;

pub use batcher::{Batch, Batcher, Options, Source};
pub use report::ReportPage;
pub use rule::Settings;
pub use tuner::Tuner;
pub use units::{Bytes, Nanos};
