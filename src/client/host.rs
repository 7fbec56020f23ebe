//! Hosts and ports as people write them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Address;
use super::argument::ArgumentProblem;

/// Cuts `host[:port]`, keeping the brackets of an IPv6 literal with the host.
pub(super) fn split_port(authority: &str) -> Result<(&str, Option<&str>), ArgumentProblem> {
    let after = match authority.strip_prefix('[') {
        Some(inside) => inside.find(']').ok_or(ArgumentProblem::NotIpv6)? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(after);
    match port.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if port.is_empty() => Ok((host, None)),
        None => Err(ArgumentProblem::NotIpv6),
    }
}

/// Parses a host: a bracketed IPv6 address, an IPv4 address, or a name that DNS could hold.
pub(super) fn parse_host(host: &str) -> Result<Address, ArgumentProblem> {
    if let Some(literal) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        if literal.contains('%') {
            return Err(ArgumentProblem::Zone);
        }
        let ip = literal
            .parse::<Ipv6Addr>()
            .map_err(|_| ArgumentProblem::NotIpv6)?;
        return Ok(Address::Ip(ip.into()));
    }
    if host.is_empty() {
        return Err(ArgumentProblem::Empty);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Ip(ip.into()));
    }
    let name = without_root(host);
    check_name(name)?;
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(ArgumentProblem::LooksLikeIpv4);
    }
    Ok(Address::Name(host.to_owned()))
}

/// Whether DNS could hold a name, which has no dot at its end.
pub(crate) fn check_name(name: &str) -> Result<(), ArgumentProblem> {
    if !name.is_ascii() {
        return Err(ArgumentProblem::NotAscii);
    }
    if name.len() > 253 {
        return Err(longest_problem(name));
    }
    name.split('.').try_for_each(check_label)
}

/// RFC 1035 section 2.3.4; underscores are no host names' but are in use.
fn check_label(label: &str) -> Result<(), ArgumentProblem> {
    if label.is_empty() {
        return Err(ArgumentProblem::EmptyLabel);
    }
    if !label
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    {
        return Err(ArgumentProblem::BadHost);
    }
    if label.len() > 63 {
        return Err(ArgumentProblem::LabelTooLong);
    }
    Ok(())
}

/// What to say of a name over 253 bytes: a bad label explains more than the length.
fn longest_problem(name: &str) -> ArgumentProblem {
    name.split('.')
        .find_map(|label| check_label(label).err())
        .unwrap_or(ArgumentProblem::NameTooLong)
}

/// Whether systems that know the old number forms would take the label for a part of an address.
fn is_number(label: &str) -> bool {
    let lower = label.to_ascii_lowercase();
    match lower.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => lower.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

pub(super) fn parse_port(port: &str) -> Result<u16, ArgumentProblem> {
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ArgumentProblem::BadPort);
    }
    match port.parse() {
        Ok(0) => Err(ArgumentProblem::PortZero),
        Ok(port) => Ok(port),
        Err(_) => Err(ArgumentProblem::BadPort),
    }
}

/// A name without the dot that makes it absolute: hosts and certificates are written without it.
pub(super) fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}
