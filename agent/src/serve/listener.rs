//! The socket's file: a path in, a listening socket out, never open for a moment to those it should not be.
//!
//! It is bound in a private directory, its mode set, and then renamed into place: a connecting process sees either no
//! socket or the finished one. A path that is a link or in use is refused; what a dead agent left is replaced.

mod lock;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use self::lock::setup_lock;

/// Any local user may connect; what each may ask, the routes decide.
const SOCKET_MODE: u32 = 0o666;
/// Mode of a directory made for the socket.
const DIRECTORY_MODE: u32 = 0o755;
/// Longest path of a Unix socket, terminating zero excluded.
const LONGEST_PATH: usize = 107;
/// Name of the socket while it is in the private directory.
const PRIVATE_NAME: &str = "s";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path is a symbolic link.
    #[error("socket {0}: is a symbolic link (give the path it points to, with --socket)")]
    Link(PathBuf),
    /// The path is something else.
    #[error("socket {0}: exists and is not a socket (remove it, or give another path with --socket)")]
    NotASocket(PathBuf),
    /// Somebody answers there.
    #[error("socket {0}: in use by a running agent (stop that one, or give another path with --socket)")]
    InUse(PathBuf),
    /// The path has no directory or no file name, or does not fit.
    #[error("socket {path}: {cause}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong and what to do.
        cause: String,
    },
    /// The system refused.
    #[error("{what} {path}: {error}{}", remedy(.error))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (run as root, or give a path of your own with --socket)",
        io::ErrorKind::ReadOnlyFilesystem => " (give a writable path with --socket)",
        _ => "",
    }
}

/// A listening socket; its file goes when this is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Bound {
    /// Binds `path`. Needs a runtime, because the listener registers with it.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let directory = parent(path)?;
        make_directory(directory)?;
        // Two agents that start at once must not both find the path free.
        let _lock = setup_lock(path)?;
        refuse_what_is_there(path)?;
        let private = PrivateDirectory::make(directory)?;
        let inner = private.path.join(PRIVATE_NAME);
        check_length(path, path)?;
        check_length(path, &inner)?;
        let listener = StdListener::bind(&inner).map_err(|e| failed("bind socket", path, e))?;
        listener.set_nonblocking(true).map_err(|e| failed("set up socket", path, e))?;
        fs::set_permissions(&inner, Permissions::from_mode(SOCKET_MODE))
            .map_err(|e| failed("set mode of socket", path, e))?;
        let meta = fs::symlink_metadata(&inner).map_err(|e| failed("look at socket", path, e))?;
        fs::rename(&inner, path).map_err(|e| failed("move socket to", path, e))?;
        let file = SocketFile { path: path.to_owned(), identity: (meta.dev(), meta.ino()) };
        let listener = UnixListener::from_std(listener).map_err(|e| failed("listen on", path, e))?;
        Ok(Self { listener, file })
    }

    /// The listener.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file could not be removed");
        }
    }
}

/// A directory only this user can enter, gone when dropped.
struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    fn make(directory: &Path) -> Result<Self, BindError> {
        let path = directory.join(format!(".tg-{}", std::process::id()));
        // Left by a dead process of the same number, which is ours now.
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
            fs::remove_dir_all(&path).map_err(|e| failed("remove left-over directory", &path, e))?;
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| failed("create directory", &path, e))?;
        Ok(Self { path })
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a private directory could not be removed");
        }
    }
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> BindError {
    BindError::Io { what, path: path.to_owned(), error }
}

fn parent(path: &Path) -> Result<&Path, BindError> {
    let unusable = |cause: &str| BindError::Path { path: path.to_owned(), cause: cause.to_owned() };
    if !path.is_absolute() {
        return Err(unusable("not an absolute path (begin it with a slash)"));
    }
    if path.file_name().is_none() {
        return Err(unusable("has no file name (give the path of a file in an existing directory)"));
    }
    path.parent().ok_or_else(|| unusable("has no directory"))
}

fn check_length(path: &Path, used: &Path) -> Result<(), BindError> {
    let len = used.as_os_str().len();
    if len <= LONGEST_PATH {
        return Ok(());
    }
    let cause = format!("{len} bytes long while it is bound, the system takes {LONGEST_PATH} (give a shorter path)");
    Err(BindError::Path { path: path.to_owned(), cause })
}

fn make_directory(directory: &Path) -> Result<(), BindError> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|e| failed("create directory of the socket", directory, e))
}

fn refuse_what_is_there(path: &Path) -> Result<(), BindError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at", path, e)),
    };
    let kind = meta.file_type();
    if kind.is_symlink() {
        return Err(BindError::Link(path.to_owned()));
    }
    if !kind.is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_answered) => Err(BindError::InUse(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A full backlog is somebody who lives.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse(path.to_owned())),
        Err(e) => Err(failed("probe", path, e)),
    }
}
