//! Opens files below a root, and nothing else.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::http::conditional::ETag;
use crate::http::path::{SafePath, is_hidden_name};

/// What a root directory gives out.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    pub(super) dotfiles: Dotfiles,
    pub(super) symlinks: Symlinks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dotfiles {
    Hidden,
    Served,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symlinks {
    /// Followed as long as they end below the root.
    Followed,
    Refused,
}

/// What was found under a path.
#[derive(Debug)]
pub(super) enum Opened {
    Directory,
    File(OpenFile),
}

impl Root {
    /// Opens what the path names.
    ///
    /// What may not be served is not found: dotfiles, symbolic links, and all that is neither a
    /// file nor a directory.
    pub(super) fn open(&self, path: &SafePath) -> io::Result<Opened> {
        if self.dotfiles == Dotfiles::Hidden && path.segments().enumerate().any(is_hidden) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = match self.symlinks {
            Symlinks::Refused => open_below(&self.path, path.segments().map(OsStr::new))?,
            Symlinks::Followed => self.open_real(path)?,
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            Ok(Opened::Directory)
        } else if metadata.is_file() {
            Ok(Opened::File(OpenFile::new(file, &metadata)?))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Resolves the links first; what they lead to is then opened without following any, so that
    /// one that changes in between leads nowhere.
    fn open_real(&self, path: &SafePath) -> io::Result<File> {
        let root = self.path.canonicalize()?;
        let target = root.join(path.as_str()).canonicalize()?;
        let below = target
            .strip_prefix(&root)
            .map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        let names: Vec<&OsStr> = below
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        let lossy = names.iter().map(|name| name.to_string_lossy());
        if self.dotfiles == Dotfiles::Hidden
            && lossy
                .enumerate()
                .any(|(at, name)| is_hidden((at, name.as_ref())))
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        open_below(&root, names.into_iter())
    }
}

/// Whether there is no such file: also when a name on the way is a file's, is a symbolic link's, or
/// is longer than the file system has.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || is_link_error(error)
}

#[cfg(unix)]
fn is_link_error(error: &io::Error) -> bool {
    use rustix::io::Errno;

    // A link where none is followed; FreeBSD says EMLINK, NetBSD EFTYPE, a socket ENXIO.
    let code = error.raw_os_error();
    [Errno::LOOP, Errno::MLINK, Errno::NXIO, Errno::NAMETOOLONG]
        .into_iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(not(unix))]
fn is_link_error(_: &io::Error) -> bool {
    false
}

/// `.well-known` is there to be asked for (RFC 8615).
fn is_hidden((depth, name): (usize, &str)) -> bool {
    is_hidden_name(name) && !(depth == 0 && name == ".well-known")
}

/// Opens names one below the other, none of which may be a symbolic link. Each is looked up in the
/// directory that is already open, so that nothing which is moved meanwhile leads out of the root.
#[cfg(unix)]
fn open_below<'a>(root: &Path, names: impl Iterator<Item = &'a OsStr>) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open, openat};

    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut found = open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    // Opening a pipe must not wait for its writer, nor a terminal become ours.
    let below = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    for name in names {
        found = openat(&found, name, below, Mode::empty())?;
    }
    Ok(File::from(found))
}

/// Opens names one below the other, none of which may be a symbolic link. Without directories that
/// can be held open, this trusts that nobody moves them meanwhile.
#[cfg(not(unix))]
fn open_below<'a>(root: &Path, names: impl Iterator<Item = &'a OsStr>) -> io::Result<File> {
    let mut path = root.to_owned();
    for name in names {
        path.push(name);
        if path.symlink_metadata()?.file_type().is_symlink() {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    File::open(path)
}

/// An open file as it was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    position: u64,
    stamp: Stamp,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: SystemTime,
}

impl OpenFile {
    fn new(file: File, metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            file,
            position: 0,
            stamp: Stamp::of(metadata)?,
        })
    }

    pub(super) const fn length(&self) -> u64 {
        self.stamp.length
    }

    /// Seconds since 1970; `None` for a time before.
    pub(super) fn modified(&self) -> Option<u64> {
        let since = self.stamp.modified.duration_since(UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    pub(super) fn etag(&self) -> io::Result<ETag> {
        let (seconds, nanoseconds) = match self.stamp.modified.duration_since(UNIX_EPOCH) {
            Ok(since) => (since.as_secs(), since.subsec_nanos()),
            Err(before) => (
                before.duration().as_secs(),
                before.duration().subsec_nanos(),
            ),
        };
        let identity = identity(&self.file.metadata()?);
        Ok(ETag::of_file(self.length(), seconds, nanoseconds, identity))
    }

    /// Fills the buffer from there on.
    ///
    /// # Errors
    /// When the file has not so many bytes, or is not the same any more.
    pub(super) fn read_exact_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if self.position != at {
            self.file.seek(SeekFrom::Start(at))?;
        }
        self.position = u64::MAX; // where a failed read leaves it
        self.file.read_exact(buffer)?;
        self.position = at.saturating_add(buffer.len() as u64);
        if Stamp::of(&self.file.metadata()?)? == self.stamp {
            Ok(())
        } else {
            Err(io::Error::other("the file changed while it was sent"))
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            length: metadata.len(),
            modified: metadata.modified()?,
        })
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> u64 {
    0
}
