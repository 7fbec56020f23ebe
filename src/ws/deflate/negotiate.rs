//! The negotiation (RFC 7692 section 7.1) in the grammar of RFC 6455 section 9.1.

use std::fmt::Write as _;

use thiserror::Error;

use super::{DeflateConfig, DeflateParams, MAX_BITS};
use crate::http::{excerpt, is_token, trim_blanks};

/// The server's part: the first offer that can be accepted, with the value of
/// `Sec-WebSocket-Extensions` that accepts it. `None` when there is none.
///
/// `values` are the values of that field in the request, in order. An offer that breaks the
/// grammar, has a parameter that RFC 7692 does not define, one twice, or one with a value that it
/// cannot have, is declined, and the next one is looked at; so are at most 16 of all extensions.
pub fn answer_offers<'h>(
    values: impl IntoIterator<Item = &'h [u8]>,
    config: &DeflateConfig,
) -> Option<(DeflateParams, String)> {
    let elements = values.into_iter().flat_map(elements);
    let offers = elements.take(MAX_OFFERS).map(Extension::parse);
    let ours = offers.flatten().filter(|extension| extension.name == NAME);
    let accepted = ours.filter_map(|extension| Offer::parse(extension.params).ok());
    accepted.map(|offer| offer.answer(config)).next()
}

/// The client's offer: a value for `Sec-WebSocket-Extensions`.
pub fn offer(config: &DeflateConfig) -> String {
    let mut value = String::from("permessage-deflate");
    push_takeover(&mut value, "server", !config.takeover.of_server());
    push_takeover(&mut value, "client", !config.takeover.of_client());
    if config.server_bits < MAX_BITS {
        push_bits(&mut value, "server", config.server_bits);
    }
    if config.client_bits < MAX_BITS {
        push_bits(&mut value, "client", config.client_bits);
    } else {
        value.push_str("; client_max_window_bits");
    }
    value
}

/// Judges the server's answer to the [`offer`] that was made of the same `config`; `None` when it
/// declined. `values` are the values of `Sec-WebSocket-Extensions` in the response.
///
/// # Errors
///
/// [`ExtensionError`] when the answer is none to that offer. The connection must not be used then
/// (RFC 7692 section 5.1).
pub fn check_answer<'h>(
    values: impl IntoIterator<Item = &'h [u8]>,
    config: &DeflateConfig,
) -> Result<Option<DeflateParams>, ExtensionError> {
    let mut agreed = None;
    for element in values.into_iter().flat_map(elements) {
        let malformed = || ExtensionError::Malformed(excerpt(element));
        let extension = Extension::parse(element).ok_or_else(malformed)?;
        if extension.name != NAME {
            return Err(ExtensionError::NotOffered(excerpt(extension.name)));
        }
        if agreed.is_some() {
            return Err(ExtensionError::Twice);
        }
        agreed = Some(Offer::parse(extension.params)?.check(config)?);
    }
    Ok(agreed)
}

/// Why a server's answer about extensions is none to what was offered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// A parameter is there twice.
    #[error("the parameter {0} of permessage-deflate is there twice")]
    Duplicate(&'static str),
    /// The value does not follow the grammar.
    #[error("\"{0}\" is no list of extensions")]
    Malformed(String),
    /// A parameter that was asked for is missing: the answer accepts another offer than ours.
    #[error("the answer lacks the parameter {0}, which the offer asks for")]
    Missing(&'static str),
    /// An extension that was not offered.
    #[error("the extension \"{0}\" was not offered")]
    NotOffered(String),
    /// A larger window than was asked for.
    #[error("{name}={bits} is more than the {asked} that were asked for")]
    TooManyBits {
        /// The parameter.
        name: &'static str,
        /// What the server answered.
        bits: u8,
        /// What was offered.
        asked: u8,
    },
    /// permessage-deflate is there twice.
    #[error("permessage-deflate is there twice")]
    Twice,
    /// A parameter that permessage-deflate does not have.
    #[error("permessage-deflate has no parameter \"{0}\"")]
    Unknown(String),
    /// A parameter with a value that it cannot have, or without the one that it needs.
    #[error("the parameter {0} of permessage-deflate has a value that it cannot have, or none")]
    Value(&'static str),
}

/// The parameters of one offer or answer, as they stand there.
#[derive(Debug, Default)]
struct Offer {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Option<Bits>,
}

/// `client_max_window_bits` needs no value in an offer (RFC 7692 section 7.1.2.2).
#[derive(Debug, Clone, Copy)]
enum Bits {
    Any,
    Most(u8),
}

impl Offer {
    fn parse(params: &[u8]) -> Result<Self, ExtensionError> {
        let mut offer = Self::default();
        let mut rest = Some(params);
        while let Some(params) = rest {
            let (param, after) = split_unquoted(params, b';');
            rest = after;
            // What stands before the first semicolon is the name.
            if !param.is_empty() {
                offer.take(param)?;
            }
        }
        Ok(offer)
    }

    fn take(&mut self, param: &[u8]) -> Result<(), ExtensionError> {
        let (name, value) = match param.iter().position(|&byte| byte == b'=') {
            Some(at) => (
                trim_blanks(param.get(..at).unwrap_or_default()),
                Some(trim_blanks(param.get(at + 1..).unwrap_or_default())),
            ),
            None => (trim_blanks(param), None),
        };
        match name {
            b"server_no_context_takeover" => {
                set_flag(&mut self.server_no_takeover, value, SERVER_TAKEOVER)
            }
            b"client_no_context_takeover" => {
                set_flag(&mut self.client_no_takeover, value, CLIENT_TAKEOVER)
            }
            b"server_max_window_bits" => {
                let bits = value.and_then(window_bits);
                let bits = bits.ok_or(ExtensionError::Value(SERVER_BITS))?;
                set_once(&mut self.server_bits, bits, SERVER_BITS)
            }
            b"client_max_window_bits" => {
                let bits = match value {
                    None => Bits::Any,
                    Some(value) => {
                        let bits = window_bits(value);
                        Bits::Most(bits.ok_or(ExtensionError::Value(CLIENT_BITS))?)
                    }
                };
                set_once(&mut self.client_bits, bits, CLIENT_BITS)
            }
            name => Err(ExtensionError::Unknown(excerpt(name))),
        }
    }

    /// What a server makes of it.
    fn answer(&self, config: &DeflateConfig) -> (DeflateParams, String) {
        let params = DeflateParams {
            server_no_context_takeover: self.server_no_takeover || !config.takeover.of_server(),
            client_no_context_takeover: self.client_no_takeover || !config.takeover.of_client(),
            server_max_window_bits: self.server_bits.unwrap_or(MAX_BITS).min(config.server_bits),
            client_max_window_bits: match self.client_bits {
                // RFC 7692 section 7.1.2.2: who did not offer it cannot be asked for it.
                None => MAX_BITS,
                Some(Bits::Any) => config.client_bits,
                Some(Bits::Most(bits)) => bits.min(config.client_bits),
            },
        };
        let mut value = String::from("permessage-deflate");
        push_takeover(&mut value, "server", params.server_no_context_takeover);
        push_takeover(&mut value, "client", params.client_no_context_takeover);
        // RFC 7692 section 7.1.2.1: an offered limit is accepted by repeating it.
        if self.server_bits.is_some() || params.server_max_window_bits < MAX_BITS {
            push_bits(&mut value, "server", params.server_max_window_bits);
        }
        if params.client_max_window_bits < MAX_BITS {
            push_bits(&mut value, "client", params.client_max_window_bits);
        }
        (params, value)
    }

    /// What a client makes of it, if it answers its offer.
    fn check(&self, config: &DeflateConfig) -> Result<DeflateParams, ExtensionError> {
        if !config.takeover.of_server() && !self.server_no_takeover {
            return Err(ExtensionError::Missing(SERVER_TAKEOVER));
        }
        let server_bits = match self.server_bits {
            None if config.server_bits < MAX_BITS => {
                return Err(ExtensionError::Missing(SERVER_BITS));
            }
            None => MAX_BITS,
            Some(bits) => at_most(bits, config.server_bits, SERVER_BITS)?,
        };
        let client_bits = match self.client_bits {
            None => config.client_bits,
            Some(Bits::Any) => return Err(ExtensionError::Value(CLIENT_BITS)),
            Some(Bits::Most(bits)) => at_most(bits, config.client_bits, CLIENT_BITS)?,
        };
        Ok(DeflateParams {
            server_no_context_takeover: self.server_no_takeover,
            client_no_context_takeover: self.client_no_takeover || !config.takeover.of_client(),
            server_max_window_bits: server_bits,
            client_max_window_bits: client_bits,
        })
    }
}

/// One element of the list: `params` begins behind the semicolon after the name.
struct Extension<'a> {
    name: &'a [u8],
    params: &'a [u8],
}

impl<'a> Extension<'a> {
    /// `None` if it breaks the grammar of RFC 6455 section 9.1.
    fn parse(element: &'a [u8]) -> Option<Self> {
        let (name, params) = split_unquoted(element, b';');
        let name = trim_blanks(name);
        if !is_token(name) {
            return None;
        }
        let mut rest = params;
        while let Some(params) = rest {
            let (param, after) = split_unquoted(params, b';');
            if !is_param(param) {
                return None;
            }
            rest = after;
        }
        let params = params.unwrap_or_default();
        Some(Self { name, params })
    }
}

/// `token [ "=" (token | quoted-string) ]`, where what is quoted is a token, too.
fn is_param(param: &[u8]) -> bool {
    let Some(at) = param.iter().position(|&byte| byte == b'=') else {
        return is_token(trim_blanks(param));
    };
    let name = trim_blanks(param.get(..at).unwrap_or_default());
    let value = trim_blanks(param.get(at + 1..).unwrap_or_default());
    let is_value = match value {
        [b'"', quoted @ .., b'"'] => {
            let mut any = false;
            let all = unescaped(quoted).all(|byte| {
                any = true;
                byte.is_some_and(|byte| is_token(&[byte]))
            });
            any && all
        }
        value => is_token(value),
    };
    is_token(name) && is_value
}

/// The bytes between quotes; `None` for a quote or a backslash that does not belong there.
fn unescaped(quoted: &[u8]) -> impl Iterator<Item = Option<u8>> {
    let mut bytes = quoted.iter().copied();
    std::iter::from_fn(move || {
        Some(match bytes.next()? {
            b'\\' => bytes.next(),
            b'"' => None,
            byte => Some(byte),
        })
    })
}

/// RFC 7692 section 7.1.2: "a decimal integer value without leading zeroes between 8 to 15".
fn window_bits(value: &[u8]) -> Option<u8> {
    let mut digits = [0; 2];
    let mut len = 0;
    let mut put = |byte: u8| {
        *digits.get_mut(len)? = byte;
        len += 1;
        Some(())
    };
    match value {
        [b'"', quoted @ .., b'"'] => unescaped(quoted).try_for_each(|byte| put(byte?))?,
        value => value.iter().try_for_each(|&byte| put(byte))?,
    }
    match *digits.get(..len)? {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// The elements of a list, whose commas may be quoted. Empty ones are left out.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let (element, after) = split_unquoted(rest?, b',');
        rest = after;
        Some(trim_blanks(element))
    })
    .filter(|element| !element.is_empty())
}

/// What stands before the first `separator` outside quotes, and what behind it.
fn split_unquoted(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut quoted = false;
    let mut escaped = false;
    let at = bytes.iter().position(|&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => return byte == separator && !quoted,
        }
        false
    });
    match at {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..)),
        None => (bytes, None),
    }
}

fn set_flag(
    place: &mut bool,
    value: Option<&[u8]>,
    name: &'static str,
) -> Result<(), ExtensionError> {
    if value.is_some() {
        return Err(ExtensionError::Value(name));
    }
    if std::mem::replace(place, true) {
        return Err(ExtensionError::Duplicate(name));
    }
    Ok(())
}

fn set_once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), ExtensionError> {
    match place.replace(value) {
        Some(_) => Err(ExtensionError::Duplicate(name)),
        None => Ok(()),
    }
}

fn at_most(bits: u8, asked: u8, name: &'static str) -> Result<u8, ExtensionError> {
    if bits > asked {
        return Err(ExtensionError::TooManyBits { name, bits, asked });
    }
    Ok(bits)
}

fn push_takeover(value: &mut String, side: &str, none: bool) {
    if none {
        value.push_str("; ");
        value.push_str(side);
        value.push_str("_no_context_takeover");
    }
}

fn push_bits(value: &mut String, side: &str, bits: u8) {
    // Writing to a string does not fail.
    let _ = write!(value, "; {side}_max_window_bits={bits}");
}

const NAME: &[u8] = b"permessage-deflate";
const SERVER_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";
/// Extensions of a request that are looked at.
const MAX_OFFERS: usize = 16;

#[cfg(test)]
mod tests;
