//! Drives a subject under the probes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use tidegate::aggregate::ledger::Ledger;
use tidegate::cli::watching::Rows;
use tidegate::event::{Body, Decoder, Mapping, RawBatch, Sample};
use tidegate::source::clock::monotonic;
use tidegate::source::ebpf::{EbpfSource, LoadOptions};
use tidegate::source::inbox::inbox;
use tidegate::source::{EventSource as _, Wanted};
use tidegate::units::{Nanos, Pid};

use crate::subject::TASK;

/// A running subject. It ends when it is dropped.
pub(crate) struct Subject {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Subject {
    pub(crate) fn start(task: &str) -> Self {
        Self::of(Command::new(std::env::current_exe().expect("this binary")).env(TASK, task))
    }

    /// A program that speaks as subjects do.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was seen to be there");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut subject = Self { child, out };
        assert_eq!(subject.hear(), "ready");
        subject
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    /// Lets it act.
    pub(crate) fn go(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it listens");
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) {
        let _status = self.child.wait().expect("it was started");
    }

    /// Waits for its next line.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    /// Lets it act, and waits until it has.
    pub(crate) fn act(&mut self) -> String {
        self.go();
        self.hear()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It ends by itself when its input closes; a subject whose test failed is ended here.
        drop(self.child.stdin.take());
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What was seen while a subject acted.
pub(crate) struct Seen {
    pub(crate) rows: Rows,
    pub(crate) samples: Vec<Sample>,
    pub(crate) ledger: Ledger,
    pub(crate) task_clock_ns: Option<u64>,
    /// Rows of threads, as they came, with their times.
    pub(crate) threads: Vec<(Nanos, agent_common::ThreadRow)>,
    /// Where code was mapped.
    pub(crate) mappings: Vec<Mapping>,
}

/// The probes, loaded.
pub(crate) struct Probes {
    runtime: tokio::runtime::Runtime,
    source: EbpfSource,
    seen: Seen,
    // Kept, or the source would wait on a closed inbox.
    _sender: tidegate::source::inbox::InboxSender,
}

impl Probes {
    pub(crate) fn load(options: LoadOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (sender, receiver) = inbox();
        let source = EbpfSource::new(options, receiver).expect("the probes load on this kernel");
        let seen = Seen {
            rows: Rows::default(),
            samples: Vec::new(),
            ledger: Ledger::default(),
            task_clock_ns: None,
            threads: Vec::new(),
            mappings: Vec::new(),
        };
        Self { runtime, source, seen, _sender: sender }
    }

    pub(crate) fn watch(&mut self, wanted: &Wanted) {
        assert_eq!(self.source.apply(wanted), Vec::<String>::new(), "everything can be attached here");
    }

    /// Samples CPUs so many times as rarely.
    pub(crate) fn thin(&mut self, factor: u32) {
        assert_eq!(self.source.thin(factor, 1), None, "the period can be changed");
    }

    pub(crate) fn attached(&self) -> Vec<&'static str> {
        self.source.attached()
    }

    /// Lets ticks pass for `length`.
    pub(crate) fn run_for(&mut self, length: Nanos) {
        let end = monotonic() + length;
        let mut batch = RawBatch::new();
        while monotonic() < end {
            batch.clear();
            self.runtime.block_on(self.source.pull(end, &mut batch)).expect("a live source goes on");
            self.seen.take(&batch);
        }
    }

    /// Lets `subject` act while ticks pass, and returns what it said.
    pub(crate) fn while_acting(&mut self, mut subject: Subject) -> (Subject, String) {
        subject.go();
        self.while_heard(subject)
    }

    /// Lets ticks pass until `subject`, which acts, says what it has to say, and returns that.
    pub(crate) fn while_heard(&mut self, mut subject: Subject) -> (Subject, String) {
        let acting = std::thread::spawn(move || {
            let said = subject.hear();
            (subject, said)
        });
        while !acting.is_finished() {
            self.run_for(Nanos::TICK);
        }
        self.flush();
        acting.join().expect("the subject acted")
    }

    /// Takes in what is still in the kernel.
    pub(crate) fn flush(&mut self) {
        let mut batch = RawBatch::new();
        self.source.flush(&mut batch);
        self.seen.take(&batch);
    }

    /// The newest totals of a thread, and of when they are.
    pub(crate) fn last_of(&self, tid: u32) -> Option<(Nanos, agent_common::ThreadRow)> {
        let rows = self.seen.threads.iter().filter(|(_, row)| row.tid == tid);
        rows.max_by_key(|(time, _)| *time).copied()
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Seen {
    fn take(&mut self, batch: &RawBatch) {
        for event in Decoder::new(batch.bytes()) {
            let event = event.expect("the kernel side writes what the decoder reads");
            self.rows.observe(&event);
            match event.body {
                Body::Stack(sample) => self.samples.push(*sample),
                Body::Mapping(mapping) => self.mappings.push(*mapping),
                Body::Ledger(row) => self.ledger = Ledger(row),
                Body::Thread(row) => self.threads.push((event.time, *row)),
                Body::Task(row) => self.task_clock_ns = Some(row.task_clock_ns),
                _ => {}
            }
        }
    }
}

/// Checks that `seen` is within `percent` of `truth`, give or take `slack`.
pub(crate) fn close(what: &str, seen: u64, truth: u64, percent: u64, slack: u64) {
    let off = seen.abs_diff(truth);
    assert!(off <= truth * percent / 100 + slack, "{what}: {seen} is not within {percent} % of {truth}");
}
