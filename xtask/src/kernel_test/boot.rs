//! Virtual machines: a kernel and a file system in, what was said on the serial line out. Each has a hard limit of time
//! and is ended with everything it started when it passes it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::image::{BEGIN, END};
use super::packages::Image;
use super::report::Kernel;
use crate::leash::{Leash, poll};
use crate::shell::which;
use crate::ui::{self, Progress};

pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// For machines that run side by side, all together.
const LIMIT: Duration = Duration::from_secs(90);
const MEMORY_MIB: &str = "1024";

/// Lines of the console that a machine without a report is shown by.
const LAST_LINES: usize = 8;

/// Boots every image at once and waits for the last. One that gives no report says nothing of the probes, only that the
/// emulated machine broke off or stood still: it is booted once more, alone.
pub(crate) fn all(images: &[Image], initramfs: &Path, cache: &Path) -> Result<Vec<Kernel>> {
    let side_by_side: Vec<&Image> = images.iter().collect();
    let mut reports = boot(&side_by_side, initramfs, cache)?;
    for (image, report) in images.iter().zip(&mut reports) {
        if let Err(cause) = report {
            ui::line(format_args!("{}: {cause}; it is booted once more", image.release));
            *report = boot(&[image], initramfs, cache)?.pop().context("one machine, no report")?;
        }
    }
    let kernel = |(image, report): (&Image, Result<String, String>)| match report {
        Ok(report) => Kernel::of_json(image.release.clone(), &report),
        Err(cause) => Kernel::silent(&image.release, &cause),
    };
    Ok(images.iter().zip(reports).map(kernel).collect())
}

/// What each machine reported, or why it did not.
fn boot(images: &[&Image], initramfs: &Path, cache: &Path) -> Result<Vec<Result<String, String>>> {
    let releases: Vec<&str> = images.iter().map(|image| image.release.as_str()).collect();
    let _progress = Progress::start(&format!("boot {}", releases.join(", ")));
    let mut machines = Vec::new();
    for image in images {
        let log = cache.join(format!("{}.log", image.release));
        machines.push((start(image, initramfs, &log)?, log));
    }
    let over = |machines: &[(Leash, _)]| -> Result<bool> {
        machines.iter().try_fold(true, |all, (leash, _)| Ok(all && leash.has_ended()?))
    };
    let ended = poll(LIMIT, || over(&machines))?;
    machines
        .into_iter()
        .map(|(leash, log)| {
            let in_time = ended || leash.has_ended()?;
            drop(leash);
            let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
            let said = String::from_utf8_lossy(&said).replace('\r', "");
            Ok(report_in(&said).map_err(|last| {
                let how = if in_time { "ended".to_owned() } else { format!("was stopped after {} s", LIMIT.as_secs()) };
                format!("{how} without a report, its console ends with {last:?} (all of it: {})", log.display())
            }))
        })
        .collect()
}

/// The report on a console, or the last lines of it where there is none.
fn report_in(console: &str) -> Result<String, String> {
    let report = console.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    report.map(|(report, _)| report.to_owned()).ok_or_else(|| {
        let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.split_at(lines.len().saturating_sub(LAST_LINES)).1.join("\n")
    })
}

fn start(image: &Image, initramfs: &Path, log: &Path) -> Result<Leash> {
    let serial = fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut command = Command::new(which(QEMU).context("no qemu")?);
    // Emulation, not the processor's own virtualization: that is refused in many a virtual machine, and half works in others.
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", MEMORY_MIB]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(&image.file).arg("-initrd").arg(initramfs);
    // A kernel that panics ends the machine instead of waiting for somebody to read it; and on a busy host the emulated
    // timer is too late for the check that the kernel makes of it.
    command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check"]);
    let errors = serial.try_clone().context("share a file")?;
    Leash::start(command.stdin(Stdio::null()).stdout(serial).stderr(errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_without_a_whole_report_is_told_by_its_last_lines() {
        assert_eq!(report_in(&format!("boot\n{BEGIN}\n[]\n{END}\n")), Ok("\n[]\n".to_owned()));
        let cut = format!("{}\n{BEGIN}\n[\n\nKernel panic\n", "line\n".repeat(50));
        let last = report_in(&cut).unwrap_err();
        assert!(last.ends_with("[\nKernel panic") && last.lines().count() == LAST_LINES, "{last}");
    }
}
