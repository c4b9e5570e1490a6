//! The check of the symbolizer: starts one, sees how it is confined, and ends it.

use crate::doctor::{degraded, ok};
use crate::serve::check::Check;
use crate::symbolize::Resolver;

const NAME: &str = "symbolizer";

pub(super) fn check() -> Check {
    let mut resolver = Resolver::new();
    resolver.warm_up();
    let stats = resolver.stats();
    if let Some(why) = &stats.unstartable {
        let remedy = "run the tidegate binary itself, on a kernel with CONFIG_SECCOMP_FILTER; `tidegate symbolizer --attempt open` says more";
        return degraded(NAME, format!("user frames have no names: {why}"), remedy);
    }
    let Some(confinement) = &stats.confinement else {
        return degraded(NAME, "it says nothing of its confinement", "report this");
    };
    let uid = confinement.uid;
    if let Some(capability) = confinement.kept_capability {
        let cause = format!("user {uid} keeps capability {capability}");
        return degraded(NAME, cause, "start the agent in a user namespace that lets it give capabilities up");
    }
    match confinement.landlock {
        Some(version) => ok(
            NAME,
            format!("user {uid}, no capabilities, system calls filtered, Landlock {version}: no file, no socket"),
        ),
        None => degraded(
            NAME,
            format!("user {uid}, no capabilities, system calls filtered, but no Landlock"),
            "boot a kernel since 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in its parameter lsm=",
        ),
    }
}
