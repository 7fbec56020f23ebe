//! Files over HTTP, from a directory or from the program itself: [`StaticFiles`] and
//! [`EmbeddedFiles`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

use super::open::{Dotfiles, OpenFile, Opened, Root, Symlinks, is_missing};
use super::transfer::{FileTransfer, Found, Source};
use crate::handler::{Http, HttpFailure, HttpHandler, HttpRequest};
use crate::http::conditional::ETag;
use crate::http::mime::content_type;
use crate::http::path::{PathError, SafePath};
use crate::http::response::Response;
use crate::http::{HeaderError, HeaderList};

/// Serves the files of a directory to GET and HEAD, with validators, conditions and ranges.
///
/// ```no_run
/// use wsloop::{Mount, StaticFiles, VhostConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = StaticFiles::new("public")?.cache_control("max-age=3600")?;
/// let config = VhostConfig::new("localhost").mount(Mount::handler("/static", files));
/// # let _ = config; Ok(()) }
/// ```
///
/// Nothing outside the directory is ever served. Dotfiles and symbolic links are as if they were not
/// there, but for `.well-known`, unless told otherwise. A directory is answered with its index file;
/// there are no listings. Files are read in pieces of 64 KiB when the client takes them, on the
/// loop's thread: keep them on a disk that answers at once. One that changes while it is sent ends
/// the connection, since what was announced cannot be kept; replace files by renaming.
#[derive(Debug)]
#[must_use]
pub struct StaticFiles {
    root: Root,
    options: Options,
    buffer: Vec<u8>,
}

impl StaticFiles {
    /// The files below this directory, with `index.html` as its index. The path may lead through
    /// symbolic links, and is resolved again for every request.
    ///
    /// # Errors
    /// [`FilesError`] when it is not a directory that can be read.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, FilesError> {
        let path = root.into();
        check_directory(&path).map_err(|source| FilesError::Root {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            root: Root {
                path,
                dotfiles: Dotfiles::Hidden,
                symlinks: Symlinks::Refused,
            },
            options: Options::new(),
            buffer: vec![0; PIECE],
        })
    }

    /// The file that stands for a directory, instead of `index.html`.
    ///
    /// # Errors
    /// [`FilesError::Name`] when it is not the name of one file.
    pub fn index(mut self, name: &str) -> Result<Self, FilesError> {
        self.options.index = file_name(name)?;
        Ok(self)
    }

    /// The file that is served where there is none, for applications that route in the page. Paths
    /// whose last segment has an extension are still not found: a missing script must not be a page.
    ///
    /// # Errors
    /// [`FilesError::Name`] when it is not a path below the directory.
    pub fn fallback(mut self, path: &str) -> Result<Self, FilesError> {
        self.options.fallback = Some(file_name(path)?);
        Ok(self)
    }

    /// The `Cache-Control` of all files (RFC 9111 section 5.2); without it caches guess.
    ///
    /// # Errors
    /// [`HeaderError`] for a value that must not be sent.
    pub fn cache_control(self, value: &str) -> Result<Self, HeaderError> {
        self.header("Cache-Control", value)
    }

    /// Adds a header to the responses that have a file, or say that it has not changed.
    ///
    /// # Errors
    /// [`HeaderError`] for a name or a value that must not be sent.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        self.options.headers.push(name, value)?;
        Ok(self)
    }

    /// Serves files and directories whose names begin with a dot, too.
    pub const fn serve_dotfiles(mut self) -> Self {
        self.root.dotfiles = Dotfiles::Served;
        self
    }

    /// Follows symbolic links, as long as they end below the directory.
    pub const fn follow_symlinks(mut self) -> Self {
        self.root.symlinks = Symlinks::Followed;
        self
    }
}

impl HttpHandler for StaticFiles {
    type Exchange = FileTransfer;

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<FileTransfer, HttpFailure> {
        let found = self.options.find(request, &self.root)?;
        let mut transfer = found.answer(http, request, &self.options.headers)?;
        transfer.pump(http, &mut self.buffer)?;
        Ok(transfer)
    }

    fn on_writable(
        &mut self,
        http: &mut Http<'_>,
        transfer: &mut FileTransfer,
    ) -> Result<(), HttpFailure> {
        transfer.pump(http, &mut self.buffer)
    }

    /// Goes on: who has asked may have nothing more to say.
    fn on_read_closed(
        &mut self,
        _: &mut Http<'_>,
        _: &mut FileTransfer,
    ) -> Result<(), HttpFailure> {
        Ok(())
    }
}

/// Serves files that are part of the program, by name, as [`StaticFiles`] serves a directory.
///
/// ```
/// use wsloop::{EmbeddedFiles, Mount, VhostConfig};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = EmbeddedFiles::new()
///     .file("index.html", b"<!doctype html>hello".as_slice())?
///     .file("css/site.css", b"body{margin:0}".as_slice())?;
/// let config = VhostConfig::new("localhost").mount(Mount::handler("/", files));
/// # let _ = config; Ok(()) }
/// ```
#[derive(Debug)]
#[must_use]
pub struct EmbeddedFiles {
    files: BTreeMap<String, Embedded>,
    options: Options,
    buffer: Vec<u8>,
}

impl EmbeddedFiles {
    /// No files yet, with `index.html` as the index.
    pub fn new() -> Self {
        Self {
            files: BTreeMap::new(),
            options: Options::new(),
            buffer: vec![0; PIECE],
        }
    }

    /// Adds a file, or replaces the one of that name: `css/site.css`, not encoded.
    ///
    /// # Errors
    /// [`FilesError::Name`] when no request could ask for it.
    pub fn file(mut self, name: &str, bytes: impl Into<Bytes>) -> Result<Self, FilesError> {
        let path = file_name(name)?;
        let bytes = bytes.into();
        let embedded = Embedded {
            etag: ETag::of_bytes(&bytes),
            bytes,
        };
        self.files.insert(path.as_str().to_owned(), embedded);
        Ok(self)
    }

    /// See [`StaticFiles::index`].
    ///
    /// # Errors
    /// [`FilesError::Name`] when it is not the name of one file.
    pub fn index(mut self, name: &str) -> Result<Self, FilesError> {
        self.options.index = file_name(name)?;
        Ok(self)
    }

    /// See [`StaticFiles::fallback`].
    ///
    /// # Errors
    /// [`FilesError::Name`] when no file can have this name.
    pub fn fallback(mut self, path: &str) -> Result<Self, FilesError> {
        self.options.fallback = Some(file_name(path)?);
        Ok(self)
    }

    /// See [`StaticFiles::cache_control`].
    ///
    /// # Errors
    /// [`HeaderError`] for a value that must not be sent.
    pub fn cache_control(self, value: &str) -> Result<Self, HeaderError> {
        self.header("Cache-Control", value)
    }

    /// See [`StaticFiles::header`].
    ///
    /// # Errors
    /// [`HeaderError`] for a name or a value that must not be sent.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HeaderError> {
        self.options.headers.push(name, value)?;
        Ok(self)
    }
}

impl Default for EmbeddedFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpHandler for EmbeddedFiles {
    type Exchange = FileTransfer;

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<FileTransfer, HttpFailure> {
        let found = self.options.find(request, &self.files)?;
        let mut transfer = found.answer(http, request, &self.options.headers)?;
        transfer.pump(http, &mut self.buffer)?;
        Ok(transfer)
    }

    fn on_writable(
        &mut self,
        http: &mut Http<'_>,
        transfer: &mut FileTransfer,
    ) -> Result<(), HttpFailure> {
        transfer.pump(http, &mut self.buffer)
    }

    /// Goes on: who has asked may have nothing more to say.
    fn on_read_closed(
        &mut self,
        _: &mut Http<'_>,
        _: &mut FileTransfer,
    ) -> Result<(), HttpFailure> {
        Ok(())
    }
}

/// Files that cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FilesError {
    /// No request could ask for a file of this name.
    #[error("{name:?} is not the name of a file: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// The root is not a directory that can be read.
    #[error("the files cannot be served from {path:?}: {source}")]
    Root {
        /// The root.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What both kinds have in common.
#[derive(Clone, Debug)]
struct Options {
    index: SafePath,
    fallback: Option<SafePath>,
    headers: HeaderList,
}

#[derive(Clone, Debug)]
struct Embedded {
    etag: ETag,
    bytes: Bytes,
}

/// Where files are looked up.
trait Store {
    fn look_up(&self, path: &SafePath) -> io::Result<LookUp>;
}

#[derive(Debug)]
enum LookUp {
    Directory,
    File(Box<Found>),
}

impl Options {
    fn new() -> Self {
        Self {
            index: SafePath::index_html(),
            fallback: None,
            headers: HeaderList::new(),
        }
    }

    /// The file that a request asks for.
    ///
    /// # Errors
    /// [`HttpFailure`] holds the answer when there is none.
    fn find(&self, request: &HttpRequest<'_>, store: &impl Store) -> Result<Found, HttpFailure> {
        check_method(request.method())?;
        if request.path_below().is_empty() {
            return Err(with_slash(request));
        }
        let path = SafePath::parse(request.path_below())
            .map_err(|error| Response::text(error.status(), format!("{error}\n")))?;
        match self.look_up(&path, store) {
            Ok(LookUp::File(found)) => Ok(*found),
            Ok(LookUp::Directory) => Err(with_slash(request)),
            Err(error) => Err(answer_to(&error)),
        }
    }

    /// The file, the index of the directory, or the fallback; the directory where the slash at its
    /// end is missing.
    fn look_up(&self, path: &SafePath, store: &impl Store) -> io::Result<LookUp> {
        let found = match (store.look_up(path), path.has_trailing_slash()) {
            (Ok(LookUp::Directory), true) => store.look_up(&path.join(&self.index)),
            (Ok(LookUp::File(_)), true) => Err(io::ErrorKind::NotFound.into()),
            (found, _) => found,
        };
        match (found, &self.fallback) {
            (Err(error), Some(fallback)) if is_missing(&error) && path.extension().is_none() => {
                store.look_up(fallback)
            }
            // An index that is a directory is no index.
            (Ok(LookUp::Directory), _) if path.has_trailing_slash() => {
                Err(io::ErrorKind::NotFound.into())
            }
            (found, _) => found,
        }
    }
}

impl Store for Root {
    fn look_up(&self, path: &SafePath) -> io::Result<LookUp> {
        match self.open(path)? {
            Opened::Directory => Ok(LookUp::Directory),
            Opened::File(file) => Ok(LookUp::File(Box::new(found_file(file, path)?))),
        }
    }
}

fn found_file(file: OpenFile, path: &SafePath) -> io::Result<Found> {
    Ok(Found {
        length: file.length(),
        etag: file.etag()?,
        modified: file.modified(),
        content_type: content_type(path.extension()),
        source: Source::File(file),
    })
}

impl Store for BTreeMap<String, Embedded> {
    fn look_up(&self, path: &SafePath) -> io::Result<LookUp> {
        if let Some(file) = self.get(path.as_str()) {
            return Ok(LookUp::File(Box::new(Found {
                length: file.bytes.len() as u64,
                etag: file.etag.clone(),
                modified: None,
                content_type: content_type(path.extension()),
                source: Source::Bytes(file.bytes.clone()),
            })));
        }
        let directory = match path.as_str() {
            "" => String::new(),
            names => format!("{names}/"),
        };
        let first = self.range(directory.clone()..).next();
        match first.filter(|(name, _)| name.starts_with(&directory)) {
            Some(_) => Ok(LookUp::Directory),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn check_directory(path: &Path) -> io::Result<()> {
    std::fs::read_dir(path).map(drop)
}

fn file_name(name: &str) -> Result<SafePath, FilesError> {
    let path = SafePath::from_names(name).and_then(|path| {
        if path.has_trailing_slash() {
            Err(PathError::EmptySegment)
        } else {
            Ok(path)
        }
    });
    path.map_err(|source| FilesError::Name {
        name: name.to_owned(),
        source,
    })
}

fn check_method(method: &str) -> Result<(), HttpFailure> {
    let status = match method {
        "GET" | "HEAD" => return Ok(()),
        "OPTIONS" => 204,
        _ => 405,
    };
    Err(Response::new(status)
        .header("Allow", "GET, HEAD, OPTIONS")?
        .into())
}

/// The redirect to the directory. The path begins with one slash and has no backslash, so it names
/// no other server.
fn with_slash(request: &HttpRequest<'_>) -> HttpFailure {
    let mut location = format!("{}/", request.path());
    if let Some(query) = request.query() {
        location.push('?');
        location.push_str(query);
    }
    match Response::new(301).header("Location", location) {
        Ok(response) => response.into(),
        Err(error) => error.into(),
    }
}

/// What may not be seen is not found; what the system cannot do now may work later.
fn answer_to(error: &io::Error) -> HttpFailure {
    let (status, text) = if is_missing(error) {
        (404, "not found\n")
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        (403, "this file may not be read\n")
    } else {
        (503, "the file cannot be read now\n")
    };
    Response::text(status, text).into()
}

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
