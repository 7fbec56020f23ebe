//! What a hook says about a connection that it allows: [`Attributes`].

use std::fmt;

use thiserror::Error;

/// A few strings by name, which a hook gives to what it allows and the session reads: a user's
/// name, a tenant, a role.
///
/// Small on purpose, since they stay with the connection: at most 32 of them, a name of at most 64
/// bytes, a value of at most 1024, and 4096 bytes in all.
///
/// ```
/// let mut attributes = wsloop::hook::Attributes::new();
/// attributes.set("user", "ada")?;
/// assert_eq!(attributes.get("user"), Some("ada"));
/// # Ok::<(), wsloop::hook::AttributeError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Sorted by name.
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl Attributes {
    /// None.
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// Sets an attribute, in place of one that has the name.
    ///
    /// # Errors
    ///
    /// [`AttributeError`] if there would be too many or they would be too long; nothing is changed
    /// then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), AttributeError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(AttributeError::Name { len: name.len() });
        }
        if value.len() > MAX_VALUE {
            return Err(AttributeError::Value { len: value.len() });
        }
        let place = self.find(name);
        let old = place
            .ok()
            .and_then(|at| self.pairs.get(at))
            .map_or(0, pair_len);
        if self.len() - old + name.len() + value.len() > MAX_BYTES {
            return Err(AttributeError::TooLong);
        }
        match place {
            Ok(at) => {
                if let Some((_, known)) = self.pairs.get_mut(at) {
                    *known = value.into();
                }
            }
            Err(_) if self.pairs.len() >= MAX_COUNT => return Err(AttributeError::TooMany),
            Err(at) => self.pairs.insert(at, (name.into(), value.into())),
        }
        Ok(())
    }

    /// The value of that name, which is compared as it is.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.find(name).ok()?;
        self.pairs.get(at).map(|(_, value)| &**value)
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Bytes of all names and values.
    pub(crate) fn len(&self) -> usize {
        self.pairs.iter().map(pair_len).sum()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.pairs
            .binary_search_by(|(known, _)| (**known).cmp(name))
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.pairs.iter().map(|(name, _)| name))
            .finish()
    }
}

/// An attribute that was not set.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeError {
    /// The name is empty or too long.
    #[error("an attribute's name of {len} bytes; it must have 1 to {MAX_NAME}")]
    Name {
        /// Its length.
        len: usize,
    },
    /// All names and values together are too long.
    #[error("the attributes would have more than {MAX_BYTES} bytes; keep the rest in the session")]
    TooLong,
    /// There are as many as there may be.
    #[error("more than {MAX_COUNT} attributes; keep the rest in the session")]
    TooMany,
    /// The value is too long.
    #[error("an attribute's value of {len} bytes; it must have at most {MAX_VALUE}")]
    Value {
        /// Its length.
        len: usize,
    },
}

fn pair_len((name, value): &(Box<str>, Box<str>)) -> usize {
    name.len() + value.len()
}

/// What a connection has that no hook decided about.
pub(crate) static NO_ATTRIBUTES: Attributes = Attributes::new();

const MAX_COUNT: usize = 32;
const MAX_NAME: usize = 64;
const MAX_VALUE: usize = 1024;
const MAX_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_name_and_replaced() {
        let mut attributes = Attributes::new();
        for (name, value) in [("user", "ada"), ("role", "admin"), ("user", "eve")] {
            attributes.set(name, value).unwrap();
        }
        let all: Vec<_> = attributes.iter().collect();
        assert_eq!(all, [("role", "admin"), ("user", "eve")]);
        assert_eq!(attributes.get("User"), None);
        assert_eq!(format!("{attributes:?}"), r#"["role", "user"]"#);
    }

    #[test]
    fn attributes_are_few_and_short() {
        let mut attributes = Attributes::new();
        assert!(matches!(
            attributes.set("", "x"),
            Err(AttributeError::Name { len: 0 })
        ));
        let name = "n".repeat(65);
        assert!(matches!(
            attributes.set(&name, "x"),
            Err(AttributeError::Name { len: 65 })
        ));
        let value = "v".repeat(1025);
        assert!(matches!(
            attributes.set("a", &value),
            Err(AttributeError::Value { len: 1025 })
        ));
        for number in 0..32 {
            attributes.set(&number.to_string(), "").unwrap();
        }
        assert_eq!(attributes.set("one more", ""), Err(AttributeError::TooMany));
        attributes.set("7", "known ones can change").unwrap();
    }

    #[test]
    fn the_sum_of_attributes_is_capped_and_what_is_replaced_does_not_count() {
        let mut attributes = Attributes::new();
        let value = "v".repeat(1023);
        for name in ["a", "b", "c", "d"] {
            attributes.set(name, &value).unwrap();
        }
        assert_eq!(attributes.set("e", ""), Err(AttributeError::TooLong));
        attributes.set("a", &value).unwrap();
        attributes.set("a", "").unwrap();
        attributes.set("e", "fits now").unwrap();
    }
}
