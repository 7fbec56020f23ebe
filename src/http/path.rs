//! The path of a request as names of files below a root.
//!
//! A path is decoded once and cut into segments, each of which is the name of one thing in one
//! directory, on every platform: whatever could mean another directory, a drive, a device or a
//! stream is refused before a file system sees it. The same rules hold everywhere, so that what is
//! served does not depend on where it is served.

use std::borrow::Cow;

use thiserror::Error;

use super::excerpt;

/// A decoded request path of which every segment is a plain name.
///
/// None of the segments is empty, `.` or `..`, and none has a separator, a control character or a
/// form that Windows gives a meaning of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafePath {
    joined: String,
    trailing_slash: bool,
}

impl SafePath {
    /// Decodes and checks the path of a request target as it came, without its query: it begins
    /// with `/`.
    ///
    /// A percent-encoded octet is decoded exactly once: `%252e` is the name `%2e`. An empty segment
    /// inside the path is refused, not dropped: no file has an empty name, and `//host` at the
    /// beginning of a `Location` would be another server.
    ///
    /// # Errors
    /// [`PathError`], which gives the status to answer with.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        let rest = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
        Self::of_segments(rest, decode)
    }

    /// Checks names that stand as they are, with `/` between them and none in front.
    ///
    /// # Errors
    /// [`PathError`], as for a request.
    pub fn from_names(names: &str) -> Result<Self, PathError> {
        Self::of_segments(names, |name| Ok(name.to_owned()))
    }

    fn of_segments(
        text: &str,
        decode: impl Fn(&str) -> Result<String, PathError>,
    ) -> Result<Self, PathError> {
        let (body, trailing_slash) = match text.strip_suffix('/') {
            Some(body) => (body, true),
            None => (text, text.is_empty()),
        };
        let mut joined = String::with_capacity(body.len());
        if !text.is_empty() {
            for raw in body.split('/') {
                let segment = decode(raw)?;
                check_segment(&segment)?;
                if !joined.is_empty() {
                    joined.push('/');
                }
                joined.push_str(&segment);
            }
        }
        Ok(Self {
            joined,
            trailing_slash,
        })
    }

    /// The segments in order; none for the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.joined.split('/').filter(|segment| !segment.is_empty())
    }

    /// The segments with a `/` between them and none around them; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.joined
    }

    /// Whether the path names a directory: it is the root, or ends with `/`.
    pub const fn has_trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// Whether a segment is a dotfile's name. Characters that some file systems do not see are not
    /// seen here either.
    pub fn is_hidden(&self) -> bool {
        self.segments().any(is_hidden_name)
    }

    /// The last segment's part behind its last dot.
    pub fn extension(&self) -> Option<&str> {
        let name = self.segments().next_back()?;
        match name.rsplit_once('.') {
            Some(("", _)) | None => None,
            Some((_, extension)) => Some(extension),
        }
    }

    /// The path of something below this one.
    pub fn join(&self, below: &Self) -> Self {
        let mut joined = self.joined.clone();
        if !joined.is_empty() && !below.joined.is_empty() {
            joined.push('/');
        }
        joined.push_str(&below.joined);
        Self {
            joined,
            trailing_slash: below.trailing_slash,
        }
    }

    /// The usual name of a directory's index.
    pub(crate) fn index_html() -> Self {
        Self {
            joined: String::from("index.html"),
            trailing_slash: false,
        }
    }

    /// The path below a prefix, when the prefix is this path's beginning in whole segments.
    pub fn below(&self, prefix: &Self) -> Option<Self> {
        let rest = self.joined.strip_prefix(prefix.as_str())?;
        let rest = match rest.strip_prefix('/') {
            Some(rest) => rest,
            None if rest.is_empty() || prefix.joined.is_empty() => rest,
            None => return None,
        };
        Some(Self {
            joined: rest.to_owned(),
            trailing_slash: self.trailing_slash,
        })
    }
}

/// Why a path names nothing that may be served.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathError {
    /// A `%` is not followed by two hexadecimal digits (RFC 3986 section 2.1).
    #[error("the path has a \"%\" without two hexadecimal digits behind it")]
    BadEscape,
    /// A segment has a backslash, which is a separator on some platforms.
    #[error("the path segment \"{0}\" has a backslash")]
    Backslash(String),
    /// A segment has NUL or another control character.
    #[error("the path segment \"{0}\" has a control character")]
    Control(String),
    /// A segment is `.` or `..`, however it is written. Clients remove such segments themselves
    /// (RFC 3986 section 5.2.4).
    #[error("the path has the segment \"{0}\"; send the path without dot segments")]
    DotSegment(String),
    /// Two slashes stand side by side.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A segment has an encoded `/`, which no name has.
    #[error("the path segment \"{0}\" has an encoded slash")]
    EncodedSlash(String),
    /// The path does not begin with `/`.
    #[error("the path does not begin with \"/\"")]
    NotAbsolute,
    /// A segment is not UTF-8, overlong forms and surrogates among it.
    #[error("the path segment \"{0}\" is not UTF-8")]
    NotUtf8(String),
    /// A segment is a name that Windows reads as something else than a file of that name: a drive,
    /// a stream, a device, a short name, or a name that ends with a dot or a blank.
    #[error("the path segment \"{0}\" is not the same name on every platform")]
    NotPortable(String),
    /// A segment is longer than any file's name.
    #[error("a path segment has {0} bytes, more than a name can have")]
    TooLong(usize),
}

impl PathError {
    /// The status to answer with: 400 for what no honest client sends, 404 for what cannot exist.
    pub const fn status(&self) -> u16 {
        match self {
            Self::EmptySegment
            | Self::EncodedSlash(_)
            | Self::NotPortable(_)
            | Self::TooLong(_) => 404,
            Self::Backslash(_)
            | Self::BadEscape
            | Self::Control(_)
            | Self::DotSegment(_)
            | Self::NotAbsolute
            | Self::NotUtf8(_) => 400,
        }
    }
}

/// Whether a name is a dotfile's. Characters that some file systems do not see are skipped: HFS+
/// opens `.git` for a name with a zero-width joiner in it.
pub fn is_hidden_name(name: &str) -> bool {
    visible(name).next() == Some('.')
}

/// How many bytes of a path as it came are the prefix, when both have their percent-encoding undone.
pub(crate) fn decoded_prefix(path: &str, prefix: &str) -> Option<usize> {
    let (mut path_rest, mut prefix_rest) = (path.as_bytes(), prefix.as_bytes());
    while let Some((wanted, rest)) = next_octet(prefix_rest) {
        prefix_rest = rest;
        let (octet, rest) = next_octet(path_rest)?;
        path_rest = rest;
        if octet != wanted {
            return None;
        }
    }
    path.len().checked_sub(path_rest.len())
}

/// The first octet, decoded where it can be. An encoded slash is none: it ends no segment.
fn next_octet(bytes: &[u8]) -> Option<(Octet, &[u8])> {
    match bytes {
        [b'%', high, low, rest @ ..] => match (hex(Some(*high)), hex(Some(*low))) {
            (Some(high), Some(low)) if (high, low) == (2, 15) => Some((Octet::EncodedSlash, rest)),
            (Some(high), Some(low)) => Some((Octet::Plain(high << 4 | low), rest)),
            _ => Some((Octet::Plain(b'%'), bytes.get(1..)?)),
        },
        [byte, rest @ ..] => Some((Octet::Plain(*byte), rest)),
        [] => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Octet {
    EncodedSlash,
    Plain(u8),
}

/// Decodes the percent-encoding of one segment, once.
fn decode(raw: &str) -> Result<String, PathError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (hex(rest.next()), hex(rest.next())) else {
                return Err(PathError::BadEscape);
            };
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|error| PathError::NotUtf8(excerpt(error.as_bytes())))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    match digit? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn check_segment(segment: &str) -> Result<(), PathError> {
    let shown = || excerpt(segment.as_bytes());
    if segment.is_empty() {
        Err(PathError::EmptySegment)
    } else if segment.chars().any(char::is_control) {
        Err(PathError::Control(shown()))
    } else if segment.contains('\\') {
        Err(PathError::Backslash(shown()))
    } else if visible(segment).eq(".".chars()) || visible(segment).eq("..".chars()) {
        Err(PathError::DotSegment(shown()))
    } else if segment.contains('/') {
        Err(PathError::EncodedSlash(shown()))
    } else if segment.len() > MAX_NAME {
        Err(PathError::TooLong(segment.len()))
    } else if is_special_on_windows(segment) {
        Err(PathError::NotPortable(shown()))
    } else {
        Ok(())
    }
}

/// The characters of a name that every file system sees.
fn visible(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|character| {
        !matches!(character,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}')
    })
}

/// Whether Windows reads the name as something else than a file of that name.
fn is_special_on_windows(name: &str) -> bool {
    // `C:`, `file::$DATA`; trailing dots and blanks are cut off before the look-up.
    name.contains(':') || name.ends_with(['.', ' ']) || is_device(name) || is_short_name(name)
}

/// Device names, which are devices in every directory and with every extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let is = |device: &str| stem.eq_ignore_ascii_case(device);
    if ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
        .into_iter()
        .any(is)
    {
        return true;
    }
    let mut numbered = stem.chars();
    let last = numbered.next_back();
    let port = numbered.as_str();
    (port.eq_ignore_ascii_case("com") || port.eq_ignore_ascii_case("lpt"))
        && last.is_some_and(|digit| matches!(digit, '0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'))
}

/// The form of generated 8.3 names, by which a hidden or long name has a second one: `GIT~1`.
fn is_short_name(name: &str) -> bool {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let Some((_, number)) = stem.rsplit_once('~') else {
        return false;
    };
    stem.len() <= 8
        && extension.len() <= 3
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Bytes of the longest name that common file systems have.
const MAX_NAME: usize = 255;

/// The path with every octet spelled in one way, as mounts compare it: what is visible stands for
/// itself, but for what would then mean something else (RFC 3986 section 6.2.2). Otherwise the
/// client would choose which rule it meets.
pub(crate) fn one_spelling(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('%') {
        out.push_str(before);
        let digits = behind.get(..2).filter(|digits| is_hex(digits));
        let octet = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match octet {
            None => {
                out.push('%');
                behind
            }
            Some(octet) => {
                match octet {
                    b'!'..=b'~' if !b"#%/?".contains(&octet) => out.push(char::from(octet)),
                    _ => out.push_str(&format!("%{octet:02X}")),
                }
                behind.get(2..).unwrap_or_default()
            }
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Signs, which numbers may have, are no digits.
fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
