//! Debian's kernel packages: the newest of a version by pattern, fetched once and kept. Takes what the package lists say,
//! never a fixed name; without a network it serves what it has kept.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::shell;
use crate::ui;

const PREFIX: &str = "linux-image-";
/// Flavours, best first: the one for virtual machines is smaller and boots faster.
const FLAVOURS: [&str; 2] = ["-cloud-amd64", "-amd64"];

/// A kernel to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// The release that it calls itself.
    pub(crate) release: String,
    pub(crate) file: PathBuf,
}

/// Two numbers with a dot between.
pub(crate) fn version(text: &str) -> Result<String, String> {
    let numbers: Vec<&str> = text.split('.').collect();
    if numbers.len() == 2 && numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        Ok(text.to_owned())
    } else {
        Err("want a version of two numbers, e.g. 6.12".to_owned())
    }
}

/// The newest kernel of `version`, or why there is none.
pub(crate) fn image(cache: &Path, version: &str) -> Result<Result<Image, String>> {
    let kept = newest(version, &kept(cache)?);
    let offered = newest(version, &offered(version)?);
    match (offered, kept) {
        (Some(offered), Some(kept)) if offered == kept => Ok(Ok(at(cache, kept))),
        (Some(offered), kept) => match (fetch(cache, &offered), kept) {
            (Ok(()), _) => Ok(Ok(at(cache, offered))),
            (Err(error), Some(kept)) => {
                ui::note(format_args!("{error:#}; going on with {kept}"));
                Ok(Ok(at(cache, kept)))
            }
            (Err(error), None) => Ok(Err(format!("Linux {version} cannot be fetched and none is kept: {error:#}"))),
        },
        (None, Some(kept)) => Ok(Ok(at(cache, kept))),
        (None, None) => Ok(Err(format!(
            "the package lists know no {PREFIX}{version}.*-amd64 and none is kept (`apt-get update` refreshes the lists)"
        ))),
    }
}

fn at(cache: &Path, release: String) -> Image {
    Image { file: cache.join(format!("vmlinuz-{release}")), release }
}

/// Releases that are kept.
fn kept(cache: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(cache).with_context(|| format!("list {}", cache.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned)).collect())
}

/// Releases that the package lists know.
fn offered(version: &str) -> Result<Vec<String>> {
    let pattern = format!("^{PREFIX}{}\\.", version.replace('.', "\\."));
    let listed = || shell::capture(Command::new("apt-cache").args(["search", "--names-only", &pattern]));
    let mut text = listed().context("ask the package lists for kernels (needs Debian's apt)")?;
    if text.trim().is_empty() && rustix::process::geteuid().is_root() {
        // A machine that never refreshed its lists; without a network this fails, and what is kept must do.
        if let Err(error) = shell::capture(Command::new("apt-get").arg("update")) {
            ui::note(format_args!("{error:#}"));
        }
        text = listed()?;
    }
    Ok(text.lines().filter_map(|line| Some(line.split_whitespace().next()?.strip_prefix(PREFIX)?.to_owned())).collect())
}

/// The newest release of `version` of the best flavour.
fn newest(version: &str, releases: &[String]) -> Option<String> {
    let of_flavour = |flavour: &str| {
        let fits = |release: &&String| {
            let Some(core) = release.strip_suffix(flavour) else { return false };
            // `6.1.0-56` is 6.1, `6.1-amd64` a mere pointer to the newest, `6.1.0-56-rt` another flavour.
            core.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'))
                && !core.ends_with("-rt")
                && !core.ends_with("-cloud")
        };
        releases.iter().filter(fits).max_by(|a, b| in_order(a, b)).cloned()
    };
    FLAVOURS.iter().find_map(|flavour| of_flavour(flavour))
}

/// Versions by their numbers, left to right.
fn in_order(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Fetches the package of `release` and keeps its kernel.
fn fetch(cache: &Path, release: &str) -> Result<()> {
    let room = tempfile::tempdir_in(cache).context("make a folder to unpack in")?;
    let package = format!("{PREFIX}{release}");
    let mut get = Command::new("apt-get");
    // As the calling user: the folder is his, and the download goes nowhere else.
    get.args(["download", "-o", "APT::Sandbox::User=root", &package]).current_dir(room.path());
    shell::must(&format!("fetch {package}"), &mut get)?;
    let debs = std::fs::read_dir(room.path())?.filter_map(|entry| Some(entry.ok()?.path()));
    let deb = debs.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb"));
    let deb = deb.with_context(|| format!("`apt-get download {package}` left no package"))?;
    let member = format!("./boot/vmlinuz-{release}");
    let mut unpack = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb).stdout(Stdio::piped()).spawn()?;
    let tar = unpack.stdout.take().context("dpkg-deb has no output")?;
    let taken = Command::new("tar").arg("-x").arg("-C").arg(room.path()).arg(&member).stdin(tar).status()?;
    let unpacked = unpack.wait()?;
    ensure!(taken.success() && unpacked.success(), "{} holds no {member}", deb.display());
    // Renamed last: what is kept is whole.
    let file = cache.join(format!("vmlinuz-{release}"));
    std::fs::rename(room.path().join(&member), &file).with_context(|| format!("keep {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: &str, releases: &[&str], wanted: Option<&str>) {
        let releases: Vec<String> = releases.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(newest(version, &releases).as_deref(), wanted);
    }

    #[test]
    fn the_newest_kernel_is_found_by_its_numbers_and_not_by_its_letters() {
        let offered = [
            "6.1.0-9-cloud-amd64",
            "6.1.0-56-cloud-amd64",
            "6.1.0-57-rt-amd64",
            "6.1.0-56-cloud-amd64-unsigned",
            "6.1.0-58-cloud-amd64-dbg",
            "6.12-cloud-amd64",
            "6.12.9+deb12-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
        ];
        check("6.1", &offered, Some("6.1.0-56-cloud-amd64"));
        check("6.12", &offered, Some("6.12.117+deb12-cloud-amd64"));
        check("6.18", &offered, None);
    }

    #[test]
    fn a_kernel_for_any_machine_does_where_there_is_none_for_virtual_ones() {
        check("6.1", &["6.1.0-3-amd64", "6.1.0-4-rt-amd64"], Some("6.1.0-3-amd64"));
        check("6.1", &["6.1.0-3-amd64", "6.1.0-2-cloud-amd64"], Some("6.1.0-2-cloud-amd64"));
    }

    #[test]
    fn a_version_is_two_numbers() {
        assert!(version("6.12").is_ok() && version("6").is_err() && version("6.x").is_err());
    }
}
