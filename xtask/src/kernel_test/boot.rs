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
use crate::ui::Progress;

pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// For all machines together: they run side by side.
const LIMIT: Duration = Duration::from_mins(2);
const MEMORY_MIB: &str = "1024";

/// Boots every image at once and waits for the last.
pub(crate) fn all(images: &[Image], initramfs: &Path, cache: &Path) -> Result<Vec<Kernel>> {
    let releases: Vec<&str> = images.iter().map(|image| image.release.as_str()).collect();
    let _progress = Progress::start(&format!("boot {}", releases.join(", ")));
    let mut machines = Vec::new();
    for image in images {
        let log = cache.join(format!("{}.log", image.release));
        machines.push((image, start(image, initramfs, &log)?, log));
    }
    let over = |machines: &[(&Image, Leash, _)]| -> Result<bool> {
        machines.iter().try_fold(true, |all, (_, leash, _)| Ok(all && leash.has_ended()?))
    };
    let ended = poll(LIMIT, || over(&machines))?;
    machines
        .into_iter()
        .map(|(image, leash, log)| {
            let in_time = ended || leash.has_ended()?;
            drop(leash);
            let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
            let said = String::from_utf8_lossy(&said).replace('\r', "");
            let report = said.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(report, _)| report);
            Ok(match report {
                Some(report) => Kernel::of_json(image.release.clone(), report),
                None if in_time => {
                    Kernel::silent(&image.release, &format!("ended without a report: see {}", log.display()))
                }
                None => Kernel::silent(
                    &image.release,
                    &format!("no report within {} s: see {}", LIMIT.as_secs(), log.display()),
                ),
            })
        })
        .collect()
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
