//! The socket's file: never in the wrong place, never open to the wrong people, never left behind.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use tidegate::serve::listener::{BindError, Bound};

fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).expect("list the directory");
    let mut names: Vec<_> = names.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn refused(path: &Path, says: &str) -> BindError {
    let error = Bound::bind(path).expect_err("the path is unfit");
    let text = error.to_string();
    assert!(text.contains(says), "{text:?} does not say {says:?}");
    error
}

#[tokio::test]
async fn the_socket_is_the_only_thing_left_and_goes_with_its_agent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let bound = Bound::bind(&path).unwrap();
    assert_eq!(entries(directory.path()), ["api.sock"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    drop(bound);
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[tokio::test]
async fn a_directory_is_made_for_it_but_not_a_whole_tree() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tidegate/api.sock");
    let bound = Bound::bind(&path).unwrap();
    assert!(bound.path().exists());
    refused(&directory.path().join("a/b/c.sock"), "create directory");
}

#[tokio::test]
async fn a_link_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("api.sock"), directory.path().join("target"));
    symlink(&target, &path).unwrap();
    assert!(matches!(refused(&path, "symbolic link"), BindError::Link(_)));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert!(!target.exists());
}

#[tokio::test]
async fn a_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(refused(&path, "not a socket"), BindError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_socket_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let first = Bound::bind(&path).unwrap();
    assert!(matches!(refused(&path, "in use"), BindError::InUse(_)));
    drop(first);
    assert!(Bound::bind(&path).is_ok());
}

#[tokio::test]
async fn what_a_dead_agent_left_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    drop(UnixListener::bind(&path).unwrap());
    let stale = fs::metadata(&path).unwrap().ino();
    let bound = Bound::bind(&path).unwrap();
    assert_ne!(fs::metadata(bound.path()).unwrap().ino(), stale);
}

#[tokio::test]
async fn a_lock_on_the_directory_keeps_no_agent_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let readable = fs::File::open(directory.path()).unwrap();
    readable.try_lock().unwrap();
    assert!(Bound::bind(&directory.path().join("api.sock")).is_ok());
}

#[tokio::test]
async fn a_lock_file_that_a_killed_agent_left_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    fs::write(directory.path().join(".api.sock.lock"), "").unwrap();
    let bound = Bound::bind(&path).unwrap();
    assert_eq!(entries(directory.path()), ["api.sock"]);
    drop(bound);
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[tokio::test]
async fn a_successors_socket_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let first = Bound::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let successor = Bound::bind(&path).unwrap();
    drop(first);
    assert!(successor.path().exists());
}

#[tokio::test]
async fn an_unfit_path_is_named_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    refused(Path::new("api.sock"), "absolute");
    refused(Path::new("/"), "file name");
    refused(&directory.path().join("x".repeat(120)), "shorter path");
    assert_eq!(entries(directory.path()), [""; 0]);
}
