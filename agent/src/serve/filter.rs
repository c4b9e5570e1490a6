//! What of a profile is shown: a question and who asks it in, yes or no for each owner out.

use crate::profile::model::Owner;
use crate::units::{Pid, Uid};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Root, or the user who runs the agent: sees everything.
    All,
    /// Anybody else: sees what ran as this user, and what was lost.
    User(Uid),
}

/// What is asked for; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// A process.
    pub pid: Option<Pid>,
    /// A cgroup and those below it.
    pub cgroup: Option<String>,
    /// The beginning of a container's id.
    pub container: Option<String>,
    /// The name of a thread.
    pub comm: Option<String>,
}

impl Filter {
    /// Whether what belongs to `owner` is shown to `viewer`.
    pub fn shows(&self, owner: &Owner, viewer: Viewer) -> bool {
        if owner.pid.is_none() {
            return true; // A note of what was lost belongs to nobody and concerns everybody.
        }
        let is_seen = match viewer {
            Viewer::All => true,
            // The user as the sample found it: by the number of the process one would see its successor too.
            Viewer::User(uid) => owner.uid == Some(uid.0) && uid.0 != 0,
        };
        let Self { pid, cgroup, container, comm } = self;
        is_seen
            && pid.is_none_or(|pid| owner.pid == Some(pid))
            && cgroup.as_deref().is_none_or(|path| owner.cgroup.as_deref().is_some_and(|own| lies_in(own, path)))
            && container.as_deref().is_none_or(|id| owner.container.as_deref().is_some_and(|own| own.starts_with(id)))
            && comm.as_deref().is_none_or(|name| &*owner.comm == name)
    }

    /// What is asked for, in words.
    pub fn whose(&self) -> String {
        let Self { pid, cgroup, container, comm } = self;
        let parts: Vec<String> = [
            pid.map(|pid| format!("process {pid}")),
            comm.as_ref().map(|name| format!("thread {name}")),
            container.as_ref().map(|id| format!("container {id}")),
            cgroup.as_ref().map(|path| format!("cgroup {path}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() { "whole host".to_owned() } else { parts.join(", ") }
    }
}

fn lies_in(own: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    own.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pid: u32, uid: Option<u32>, cgroup: &str) -> Owner {
        let container = Some("abcdef".into());
        Owner { pid: Some(Pid(pid)), uid, comm: "app".into(), cgroup: Some(cgroup.into()), container }
    }

    #[test]
    fn a_user_sees_what_ran_as_him_and_nobody_sees_what_is_nobodys_but_root() {
        let all = Filter::default();
        for (uid, viewer, shown) in [
            (Some(1000), Viewer::User(Uid(1000)), true),
            (Some(1001), Viewer::User(Uid(1000)), false),
            (Some(0), Viewer::User(Uid(1000)), false),
            (None, Viewer::User(Uid(1000)), false),
            (Some(0), Viewer::User(Uid(0)), false),
            (Some(0), Viewer::All, true),
            (None, Viewer::All, true),
        ] {
            assert_eq!(all.shows(&owner(7, uid, "/"), viewer), shown, "{uid:?} for {viewer:?}");
            let filter = Filter { pid: Some(Pid(7)), ..Filter::default() };
            assert_eq!(filter.shows(&owner(7, uid, "/"), viewer), shown, "naming the process opens nothing");
        }
        let lost = Owner { pid: None, uid: None, comm: "[lost]".into(), cgroup: None, container: None };
        assert!(all.shows(&lost, Viewer::User(Uid(1000))));
    }

    #[test]
    fn a_cgroup_holds_those_below_it_and_not_those_that_begin_alike() {
        let shows = |asked: &str, own: &str| {
            let filter = Filter { cgroup: Some(asked.to_owned()), ..Filter::default() };
            filter.shows(&owner(1, None, own), Viewer::All)
        };
        assert!(shows("/a.slice", "/a.slice") && shows("/a.slice/", "/a.slice/b") && shows("/", "/a"));
        assert!(!shows("/a.slice", "/a.slice2") && !shows("/a/b", "/a"));
        let filter = |container: &str, comm: &str| {
            let filter = Filter { container: Some(container.into()), comm: Some(comm.into()), ..Filter::default() };
            filter.shows(&owner(1, None, "/"), Viewer::All)
        };
        assert!(filter("abc", "app") && !filter("bc", "app") && !filter("abc", "ap"));
    }
}
