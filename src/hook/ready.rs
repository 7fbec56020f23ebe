//! Hooks that are ready to use.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::{Hook, HookAnswer, HookError, HookRequest};
use crate::protocol::Refuse;
use crate::wsi::Cx;

/// Allows clients from these addresses, and leaves the others to the next hook.
///
/// ```
/// use wsloop::hook::AllowPeers;
///
/// let local = AllowPeers::new(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])?;
/// assert!(local.contains("10.1.2.3".parse().unwrap()));
/// # Ok::<(), wsloop::hook::RangeError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct AllowPeers {
    ranges: Vec<Range>,
}

impl AllowPeers {
    /// Takes addresses (`10.0.0.1`) and prefixes (`10.0.0.0/8`). IPv4 ones also match clients that
    /// an IPv6 listener shows as `::ffff:10.0.0.1`.
    ///
    /// # Errors
    ///
    /// [`RangeError`] for the first that is neither.
    pub fn new<S: AsRef<str>>(ranges: impl IntoIterator<Item = S>) -> Result<Self, RangeError> {
        let parsed = ranges.into_iter().map(|range| Range::parse(range.as_ref()));
        let ranges = parsed.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { ranges })
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ranges.iter().any(|range| range.contains(address))
    }
}

impl Hook for AllowPeers {
    fn ask(&mut self, _: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        Ok(match self.contains(request.peer_addr().ip()) {
            true => HookAnswer::allow(),
            false => HookAnswer::Next,
        })
    }
}

/// What is neither an address nor a prefix.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{range:?}: {problem}")]
#[non_exhaustive]
pub struct RangeError {
    /// What was given.
    pub range: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    address: IpAddr,
    bits: u8,
}

impl Range {
    fn parse(text: &str) -> Result<Self, RangeError> {
        let refuse = |problem| RangeError {
            range: text.to_owned(),
            problem,
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| refuse("write an IP address, or one with \"/\" and a prefix length"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(|| refuse("the prefix is longer than the address"))?,
            Some(_) => return Err(refuse("the prefix length is not a number")),
        };
        let range = Self { address, bits };
        if range.masked(address) != number(address) {
            return Err(refuse("there are bits behind the prefix; make them 0"));
        }
        Ok(range.canonical())
    }

    /// IPv4 addresses that are written as IPv6 ones are IPv4 ones.
    fn canonical(self) -> Self {
        match (self.address.to_canonical(), self.address.is_ipv6()) {
            (address @ IpAddr::V4(_), true) if self.bits >= MAPPED_BITS => Self {
                address,
                bits: self.bits - MAPPED_BITS,
            },
            _ => self,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && self.masked(address) == self.masked(self.address)
    }

    /// The bits of the prefix, as a number of the address's own width.
    fn masked(&self, address: IpAddr) -> u128 {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let behind = u32::from(width - self.bits.min(width));
        let kept = u128::MAX.checked_shl(behind).unwrap_or(0);
        number(address) & kept
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// What stands before an IPv4 address in `::ffff:a.b.c.d`.
const MAPPED_BITS: u8 = 96;

/// Denies everything with the same response: the end of a chain, or a vhost that is closed.
#[derive(Clone, Debug)]
pub struct DenyAll(Refuse);

impl DenyAll {
    /// Denies with this response.
    pub const fn new(refuse: Refuse) -> Self {
        Self(refuse)
    }
}

impl Hook for DenyAll {
    fn ask(&mut self, _: &mut Cx<'_>, _: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        Ok(HookAnswer::Deny(self.0.clone()))
    }
}

/// Allows everything: the end of a chain that only denies.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct AllowAll;

impl AllowAll {
    /// The only one.
    pub const fn new() -> Self {
        Self
    }
}

impl Hook for AllowAll {
    fn ask(&mut self, _: &mut Cx<'_>, _: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        Ok(HookAnswer::allow())
    }
}

/// A function as a hook.
pub struct FnHook<F>(F);

impl<F> FnHook<F>
where
    F: FnMut(&mut Cx<'_>, &HookRequest<'_>) -> Result<HookAnswer, HookError> + Send + 'static,
{
    /// Asks this function.
    pub const fn new(ask: F) -> Self {
        Self(ask)
    }
}

impl<F> Hook for FnHook<F>
where
    F: FnMut(&mut Cx<'_>, &HookRequest<'_>) -> Result<HookAnswer, HookError> + Send + 'static,
{
    fn ask(&mut self, cx: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        (self.0)(cx, request)
    }
}

impl<F> fmt::Debug for FnHook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FnHook")
    }
}

/// Allows clients that have shown a certificate which was verified and is one of these, and leaves
/// the others to the next hook.
///
/// A certificate that a `danger_` option accepted without verification never counts, but by its
/// fingerprint, which nobody else's certificate has.
#[cfg(feature = "tls")]
#[derive(Clone, Debug, Default)]
pub struct AllowIdentity {
    any: bool,
    common_names: Vec<String>,
    dns_names: Vec<String>,
    uris: Vec<String>,
    fingerprints: Vec<[u8; 32]>,
}

#[cfg(feature = "tls")]
impl AllowIdentity {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everybody whose certificate was verified.
    #[must_use]
    pub const fn verified(mut self) -> Self {
        self.any = true;
        self
    }

    /// Whose subject has this common name.
    #[must_use]
    pub fn common_name(mut self, name: impl Into<String>) -> Self {
        self.common_names.push(name.into());
        self
    }

    /// Who has this DNS name among the subject alternative names, case aside.
    #[must_use]
    pub fn dns_name(mut self, name: impl Into<String>) -> Self {
        self.dns_names.push(name.into());
        self
    }

    /// Who has this URI, such as a SPIFFE id, among the subject alternative names.
    #[must_use]
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uris.push(uri.into());
        self
    }

    /// Whose certificate has this SHA-256 fingerprint.
    #[must_use]
    pub fn fingerprint(mut self, sha256: [u8; 32]) -> Self {
        self.fingerprints.push(sha256);
        self
    }

    /// Whether the peer is one of them.
    pub fn contains(&self, peer: &crate::tls::PeerIdentity) -> bool {
        if !self.fingerprints.is_empty() {
            let sha256 = peer.sha256();
            if sha256.is_some_and(|sha256| self.fingerprints.contains(&sha256)) {
                return true;
            }
        }
        peer.is_verified() && (self.any || self.names_it(peer))
    }

    fn names_it(&self, peer: &crate::tls::PeerIdentity) -> bool {
        let common = |name: &str| self.common_names.iter().any(|known| known == name);
        let dns = |name: &String| {
            let mut known = self.dns_names.iter();
            known.any(|known| known.eq_ignore_ascii_case(name))
        };
        peer.common_name().is_some_and(common)
            || (!self.dns_names.is_empty() && peer.dns_names().iter().any(dns))
            || (!self.uris.is_empty() && peer.uri_names().iter().any(|uri| self.uris.contains(uri)))
    }
}

#[cfg(feature = "tls")]
impl Hook for AllowIdentity {
    fn ask(&mut self, _: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        let peer = request.peer_identity();
        Ok(match peer.is_some_and(|peer| self.contains(&peer)) {
            true => HookAnswer::allow(),
            false => HookAnswer::Next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_what_begins_with_it() {
        // The ranges, an address, whether it is in.
        let cases = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.6", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.0.0.1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::/0", "10.0.0.1", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fc00::1", false),
            ("2001:db8::/33", "2001:db8:7fff::", true),
            ("2001:db8::/33", "2001:db8:8000::", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("::1/128", "::1", true),
        ];
        for (range, address, inside) in cases {
            let peers = AllowPeers::new([range]).unwrap();
            let found = peers.contains(address.parse().unwrap());
            assert_eq!(found, inside, "{address} in {range}");
        }
        let none = AllowPeers::default();
        assert!(!none.contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_what_to_do() {
        for (range, problem) in [
            ("", "IP address"),
            ("localhost", "IP address"),
            ("10.0.0.0/33", "longer"),
            ("::/129", "longer"),
            ("::/999", "longer"),
            ("10.0.0.0/", "longer"),
            ("10.0.0.0/+8", "not a number"),
            ("10.0.0.0/-1", "not a number"),
            ("10.0.0.1/8", "make them 0"),
            ("fd00::1/8", "make them 0"),
        ] {
            let error = AllowPeers::new([range]).unwrap_err();
            assert!(error.to_string().contains(problem), "{range}: {error}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn only_verified_certificates_count_but_for_their_fingerprint() {
        use crate::tls::{PeerIdentity, testpki::Pki};

        let leaf = Pki::new("ca")
            .leaf(&["device.test"])
            .common_name("device 7")
            .issue();
        let verified = PeerIdentity::new(leaf.chain_der().to_vec(), true);
        let unverified = PeerIdentity::new(leaf.chain_der().to_vec(), false);
        let by_name = [
            AllowIdentity::new().verified(),
            AllowIdentity::new().common_name("device 7"),
            AllowIdentity::new().dns_name("Device.test"),
        ];
        for allowed in by_name {
            assert!(allowed.contains(&verified), "{allowed:?}");
            assert!(!allowed.contains(&unverified), "{allowed:?}");
        }
        for nobody in [
            AllowIdentity::new(),
            AllowIdentity::new().common_name("device 8"),
            AllowIdentity::new().dns_name("test").uri("device.test"),
            AllowIdentity::new().fingerprint([7; 32]),
        ] {
            assert!(!nobody.contains(&verified), "{nobody:?}");
        }
        if let Some(sha256) = verified.sha256() {
            let pinned = AllowIdentity::new().fingerprint(sha256);
            assert!(pinned.contains(&unverified));
        }
    }
}
