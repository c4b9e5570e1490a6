//! Settings pages: settings of the newest tick in, files that pipelines map out. Leases are renewed here as well.
//!
//! A page lies under the user's number and the pipeline's name, so that nobody is ever handed a page that another user
//! has mapped. What an earlier agent left is taken up again: same file, and the generation goes on. Never reads a clock.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_client::abi::{SETTINGS_VALUES, VALUE_BATCH_BYTES, VALUE_FLUSH_INTERVAL_US, VALUE_NAMES};
use tidegate_client::page::{PageError, PageReader, PageWriter};

use crate::serve::view::PipelineView;
use crate::units::{BatchSize, FlushInterval, Generation, Nanos, PipelineName, Settings, Uid};

/// Longest time between two renewals of a lease.
const RENEW_AT_LEAST: Nanos = Nanos::SECOND;

/// Where the pages are; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages {
    root: Arc<Path>,
}

/// Why a page could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// A directory is not what it should be.
    #[error("directory {path}: {cause}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What is wrong and what to do.
        cause: String,
    },
    /// The page itself.
    #[error(transparent)]
    Page(#[from] PageError),
}

impl Pages {
    /// Under `root`, which need not exist yet.
    pub fn under(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Where the page of a pipeline is, whether or not it exists.
    pub fn path(&self, uid: Uid, name: &PipelineName) -> PathBuf {
        self.root.join(uid.0.to_string()).join(name.as_str())
    }

    /// What the page of a pipeline says, if there is one that can be read.
    pub fn look(&self, uid: Uid, name: &PipelineName) -> Option<(Generation, Settings)> {
        let said = PageReader::open(&self.path(uid, name)).ok()?.read()?;
        Some((Generation(said.generation), settings(&said.values)))
    }
}

/// The writing side: one for the whole agent.
#[derive(Debug)]
pub struct Publisher {
    pages: Pages,
    agent: Uid,
    open: HashMap<PipelineName, Open>,
}

#[derive(Debug)]
struct Open {
    uid: Uid,
    writer: PageWriter,
    ttl: Nanos,
    renewed: Nanos,
}

impl Open {
    /// Writes settings, under a lease that begins at `boot`.
    fn publish(&mut self, (generation, settings): (Generation, Settings), boot: Nanos) -> Result<(), PagesError> {
        self.writer.publish(generation.0, &values(settings), (boot + self.ttl).0)?;
        self.renewed = boot;
        Ok(())
    }
}

impl Publisher {
    /// Writes under `pages` as the user `agent`.
    pub fn new(pages: Pages, agent: Uid) -> Self {
        Self { pages, agent, open: HashMap::new() }
    }

    /// Settings that were decided just now, to their page if it is open. What cannot be written is tried again, and told of,
    /// by `publish` at the end of the tick.
    pub fn publish_at_once(&mut self, name: &PipelineName, uid: Uid, to: (Generation, Settings), boot: Nanos) {
        if let Some(open) = self.open.get_mut(name).filter(|open| open.uid == uid) {
            open.publish(to, boot).ok();
        }
    }

    /// Brings every page up to date and prolongs the leases that are due; `boot` is the boot-time clock. Pages of
    /// pipelines that have ended are removed. Returns what went wrong, each with its page.
    pub fn publish(&mut self, pipelines: &[PipelineView], boot: Nanos) -> Vec<String> {
        self.remove_ended(pipelines);
        let mut wrong = Vec::new();
        // What is only watched reads no page.
        for pipeline in pipelines.iter().filter(|p| p.registration.watch.is_none()) {
            if let Err(error) = self.publish_one(pipeline, boot) {
                wrong.push(format!("settings of {}: {error}", pipeline.name));
            }
        }
        wrong
    }

    fn remove_ended(&mut self, pipelines: &[PipelineView]) {
        let tuned = pipelines.iter().filter(|p| p.registration.watch.is_none());
        let tuned: HashSet<(&PipelineName, Uid)> = tuned.map(|p| (&p.name, p.uid)).collect();
        self.open.retain(|name, open| {
            let lives = tuned.contains(&(name, open.uid));
            if !lives && let Err(error) = fs::remove_file(open.writer.path()) {
                tracing::warn!(page = %open.writer.path().display(), %error, "the page of an ended pipeline stays");
            }
            lives
        });
    }

    fn publish_one(&mut self, pipeline: &PipelineView, boot: Nanos) -> Result<(), PagesError> {
        let ttl = Nanos::from_millis(pipeline.registration.lease.ttl_ms);
        let values = values(pipeline.settings);
        if !self.open.contains_key(&pipeline.name) {
            let writer = self.create(pipeline, &values)?;
            self.open.insert(pipeline.name.clone(), Open { uid: pipeline.uid, writer, ttl, renewed: Nanos(0) });
        }
        let open = self.open.get_mut(&pipeline.name).expect("it was inserted above when it was not there");
        open.ttl = ttl;
        let said = open.writer.snapshot();
        let changed = said.generation != pipeline.generation.0 || said.values[..values.len()] != values;
        if changed {
            return open.publish((pipeline.generation, pipeline.settings), boot);
        }
        if open.renewed == Nanos(0) || boot.since(open.renewed) >= Nanos(RENEW_AT_LEAST.0.min(ttl.0 / 3)) {
            open.writer.renew((boot + ttl).0);
            open.renewed = boot;
        }
        Ok(())
    }

    fn create(&self, pipeline: &PipelineView, values: &[u64]) -> Result<PageWriter, PagesError> {
        let path = self.pages.path(pipeline.uid, &pipeline.name);
        own_directory(&self.pages.root, self.agent)?;
        if let Some(directory) = path.parent() {
            own_directory(directory, self.agent)?;
        }
        Ok(PageWriter::open(&path, values)?)
    }
}

fn values(settings: Settings) -> [u64; VALUE_NAMES.len()] {
    let mut values = [0; VALUE_NAMES.len()];
    values[VALUE_BATCH_BYTES] = settings.batch.0;
    values[VALUE_FLUSH_INTERVAL_US] = settings.interval.0;
    values
}

fn settings(values: &[u64; SETTINGS_VALUES]) -> Settings {
    Settings { batch: BatchSize(values[VALUE_BATCH_BYTES]), interval: FlushInterval(values[VALUE_FLUSH_INTERVAL_US]) }
}

/// Makes the directory if need be; one that others could write to would let them put links in the agent's way.
fn own_directory(path: &Path, agent: Uid) -> Result<(), PagesError> {
    let wrong = |cause: String| PagesError::Directory { path: path.to_owned(), cause };
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(wrong(format!("create: {e}"))),
    }
    let meta = fs::symlink_metadata(path).map_err(|e| wrong(format!("look at: {e}")))?;
    if !meta.is_dir() {
        return Err(wrong("is no directory (remove it)".to_owned()));
    }
    if meta.uid() != agent.0 || meta.permissions().mode() & 0o022 != 0 {
        let (uid, mode) = (meta.uid(), meta.permissions().mode() & 0o777);
        let want = format!("want user {} and mode 755", agent.0);
        return Err(wrong(format!("belongs to user {uid} with mode {mode:o}, {want} (remove it)")));
    }
    Ok(())
}
