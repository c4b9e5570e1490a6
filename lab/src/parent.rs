//! What a process of the laboratory owes to the one that started it: to die with it, and to be known by its name.

use std::ffi::CString;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Dies when the process `parent` does. Without one, this is a process that a person started.
pub(crate) fn follow(parent: Option<i32>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask for the parent's death signal")?;
    // It may have died before the signal was asked for.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        bail!("process {parent} that started this one is gone");
    }
    Ok(())
}

/// Keeps this process on the processors of `list`, numbers separated by commas.
pub(crate) fn keep_to_cpus(list: Option<&str>) -> Result<()> {
    let Some(list) = list else { return Ok(()) };
    let mut set = CpuSet::new();
    for number in list.split(',') {
        set.set(number.parse().with_context(|| format!("--cpus {list:?}: want numbers, like 0,1"))?);
    }
    sched_setaffinity(None, &set).with_context(|| format!("keep to processors {list}"))
}

/// Names this process as `ps` and flame graphs show it: started through `/proc/self/exe` it would be called `exe`.
pub(crate) fn take_name(name: &str) {
    let short: String = name.chars().filter(char::is_ascii).take(15).collect();
    if let Ok(name) = CString::new(short) {
        // The name is a courtesy to whoever looks.
        rustix::thread::set_name(&name).ok();
    }
}
