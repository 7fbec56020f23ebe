//! Basic authentication (RFC 7617): whose name and password a request brings.
//!
//! The password crosses the network in what is as good as plain text: this is for TLS, or for a
//! network that nobody else is on.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use super::head::Headers;

/// The users of a realm, by name and password.
///
/// Only digests are kept. How long a comparison takes depends on what the client sent and on how
/// many users there are, never on their names, their passwords, or how much of them was guessed.
#[derive(Clone)]
pub struct BasicRealm {
    challenge: String,
    users: Vec<User>,
}

impl BasicRealm {
    /// A realm without users; its name is shown to people by their browsers.
    ///
    /// # Errors
    /// [`BasicConfigError::Realm`] when the name has a control character or is not ASCII.
    pub fn new(realm: &str) -> Result<Self, BasicConfigError> {
        Ok(Self {
            challenge: format!("Basic realm={}, charset=\"UTF-8\"", quoted(realm)?),
            users: Vec::new(),
        })
    }

    /// Adds a user.
    ///
    /// # Errors
    /// [`BasicConfigError::User`] when the name has a colon or a control character,
    /// [`BasicConfigError::Password`] when the password has a control character
    /// (RFC 7617 section 2).
    pub fn user(mut self, name: &str, password: &str) -> Result<Self, BasicConfigError> {
        if name.contains(':') || name.chars().any(char::is_control) {
            return Err(BasicConfigError::User);
        }
        if password.chars().any(char::is_control) {
            return Err(BasicConfigError::Password);
        }
        self.users.push(User {
            name: name.to_owned(),
            digest: Sha1::digest(format!("{name}:{password}")).into(),
        });
        Ok(self)
    }

    /// The name of the user whose credentials the request has.
    ///
    /// # Errors
    /// [`BasicError`]; answer it with 401 and [`challenge`](Self::challenge), or as its
    /// [`status`](BasicError::status) says.
    pub fn authenticate(&self, headers: &Headers<'_>) -> Result<&str, BasicError> {
        let mut fields = headers.all("Authorization");
        let field = match (fields.next(), fields.next()) {
            (Some(field), None) => field,
            (None, _) => return Err(BasicError::Missing),
            (Some(_), Some(_)) => return Err(BasicError::Several),
        };
        self.find(&decode(field)?).ok_or(BasicError::Wrong)
    }

    /// The value of `WWW-Authenticate` beside a 401.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Compares with every user, the first match no faster than none.
    fn find(&self, credentials: &[u8]) -> Option<&str> {
        let digest: [u8; 20] = Sha1::digest(credentials).into();
        let none = u32::MAX;
        let mut found = none;
        for (index, user) in (0..none).zip(&self.users) {
            let same: Choice = user.digest.ct_eq(&digest);
            found.conditional_assign(&index, same);
        }
        let index = usize::try_from(found).ok()?;
        self.users.get(index).map(|user| user.name.as_str())
    }
}

impl fmt::Debug for BasicRealm {
    /// Shows no user and no digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicRealm")
            .field("challenge", &self.challenge)
            .field("users", &self.users.len())
            .finish()
    }
}

/// A realm that cannot be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BasicConfigError {
    /// The password has a control character.
    #[error("the password has a control character, which Basic credentials cannot have; remove it")]
    Password,
    /// The name of the realm is not printable ASCII.
    #[error("the name of the realm is not printable ASCII; use letters, digits and blanks")]
    Realm,
    /// The user's name has a colon or a control character.
    #[error("the user's name has a colon or a control character, which would end it; remove it")]
    User,
}

/// Why a request is not a known user's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BasicError {
    /// The credentials are not base64 of a name, a colon and a password.
    #[error("the Basic credentials are not base64 of \"name:password\"")]
    Malformed,
    /// There is no `Authorization` field.
    #[error("the request has no Authorization field")]
    Missing,
    /// The credentials are of another scheme.
    #[error("the Authorization field is not of the Basic scheme")]
    OtherScheme,
    /// There is more than one `Authorization` field.
    #[error("the request has more than one Authorization field")]
    Several,
    /// No user has this name and this password.
    #[error("no user has this name and this password")]
    Wrong,
}

impl BasicError {
    /// 401, which asks for credentials; 400 where a reader in front of us may have seen others.
    pub const fn status(self) -> u16 {
        match self {
            Self::Several => 400,
            Self::Malformed | Self::Missing | Self::OtherScheme | Self::Wrong => 401,
        }
    }
}

#[derive(Clone)]
struct User {
    name: String,
    /// Of `name:password`, as the client sends it. SHA-1 is here to make all comparisons as long as
    /// each other; that somebody can make two inputs of one digest does not help to hit a given one.
    digest: [u8; 20],
}

/// The decoded `name:password` (RFC 7617 section 2).
fn decode(field: &[u8]) -> Result<Vec<u8>, BasicError> {
    let (scheme, rest) = field.split_at_checked(5).ok_or(BasicError::OtherScheme)?;
    if !scheme.eq_ignore_ascii_case(b"Basic") || !matches!(rest, [] | [b' ', ..]) {
        return Err(BasicError::OtherScheme);
    }
    let decoded = LENIENT
        .decode(rest.trim_ascii())
        .map_err(|_| BasicError::Malformed)?;
    if decoded.contains(&b':') {
        Ok(decoded)
    } else {
        Err(BasicError::Malformed)
    }
}

/// A quoted string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> Result<String, BasicConfigError> {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => return Err(BasicConfigError::Realm),
        }
    }
    quoted.push('"');
    Ok(quoted)
}

/// Padding or none: some clients leave it out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::super::head::{HeadLimits, RequestHead};
    use super::*;

    fn realm() -> BasicRealm {
        let realm = BasicRealm::new("home").unwrap();
        let realm = realm.user("Aladdin", "open sesame").unwrap();
        let realm = realm.user("test", "123\u{a3}").unwrap();
        realm
            .user("colon", "a:b:c")
            .unwrap()
            .user("nobody", "")
            .unwrap()
    }

    fn authenticate(fields: &[&str]) -> Result<String, BasicError> {
        let mut text = String::from("GET / HTTP/1.1\r\nHost: h\r\n");
        for field in fields {
            text.push_str(&format!("Authorization: {field}\r\n"));
        }
        text.push_str("\r\n");
        let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default()).unwrap();
        realm().authenticate(head.fields()).map(str::to_owned)
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", LENIENT.encode(credentials))
    }

    #[test]
    fn the_examples_of_rfc_7617_are_their_users() {
        let aladdin = authenticate(&["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
        assert_eq!(aladdin.as_deref(), Ok("Aladdin"));
        assert_eq!(
            authenticate(&["Basic dGVzdDoxMjPCow=="]).as_deref(),
            Ok("test")
        );
    }

    #[test]
    fn a_user_has_one_name_and_one_password() {
        for (credentials, user) in [
            ("colon:a:b:c", Ok("colon")),
            ("nobody:", Ok("nobody")),
            ("Aladdin:open sesam", Err(BasicError::Wrong)),
            ("Aladdin:open sesame ", Err(BasicError::Wrong)),
            ("aladdin:open sesame", Err(BasicError::Wrong)),
            ("Aladdin:", Err(BasicError::Wrong)),
            (":open sesame", Err(BasicError::Wrong)),
            (":", Err(BasicError::Wrong)),
            ("colon:a", Err(BasicError::Wrong)),
            ("Aladdin:123\u{a3}", Err(BasicError::Wrong)),
            ("Aladdin", Err(BasicError::Malformed)),
            ("", Err(BasicError::Malformed)),
        ] {
            let found = authenticate(&[&basic(credentials)]);
            assert_eq!(
                found.as_deref().map_err(|error| *error),
                user,
                "{credentials}"
            );
        }
    }

    #[test]
    fn the_field_is_read_as_the_rfc_writes_it() {
        for (field, expected) in [
            ("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Ok("Aladdin")),
            ("BASIC   QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Ok("Aladdin")),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", Ok("Aladdin")),
            ("Basic", Err(BasicError::Malformed)),
            ("Basic !!!", Err(BasicError::Malformed)),
            ("Basic QWxh ZGRpbg==", Err(BasicError::Malformed)),
            (
                "BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                Err(BasicError::OtherScheme),
            ),
            (
                "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                Err(BasicError::OtherScheme),
            ),
            ("Digest username=\"x\"", Err(BasicError::OtherScheme)),
            ("", Err(BasicError::OtherScheme)),
        ] {
            let found = authenticate(&[field]);
            assert_eq!(
                found.as_deref().map_err(|error| *error),
                expected,
                "{field}"
            );
        }
        assert_eq!(authenticate(&[]), Err(BasicError::Missing));
        let aladdin = basic("Aladdin:open sesame");
        let twice = authenticate(&[&aladdin, &aladdin]);
        assert_eq!(twice, Err(BasicError::Several));
        assert_eq!(
            (BasicError::Several.status(), BasicError::Wrong.status()),
            (400, 401)
        );
    }

    #[test]
    fn a_realm_without_users_knows_nobody() {
        let realm = BasicRealm::new("x").unwrap();
        assert_eq!(realm.find(b":"), None);
    }

    #[test]
    fn the_challenge_cannot_be_split_or_extended() {
        let challenge = |realm| BasicRealm::new(realm).map(|realm| realm.challenge().to_owned());
        assert_eq!(
            challenge("a b").unwrap(),
            "Basic realm=\"a b\", charset=\"UTF-8\""
        );
        assert_eq!(
            challenge("a\", x=\"\\").unwrap(),
            "Basic realm=\"a\\\", x=\\\"\\\\\", charset=\"UTF-8\""
        );
        for bad in ["a\r\nSet-Cookie: x", "\0", "caf\u{e9}", "\x7f"] {
            assert_eq!(challenge(bad), Err(BasicConfigError::Realm), "{bad:?}");
        }
    }

    #[test]
    fn users_that_could_not_log_in_are_refused() {
        let user = |name, password| BasicRealm::new("x").unwrap().user(name, password).err();
        assert_eq!(user("a:b", "c"), Some(BasicConfigError::User));
        assert_eq!(user("a\n", "c"), Some(BasicConfigError::User));
        assert_eq!(user("a", "c\0"), Some(BasicConfigError::Password));
        assert_eq!(user("", ""), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", realm());
        assert!(
            !text.contains("sesame") && !text.contains("Aladdin"),
            "{text}"
        );
    }
}
