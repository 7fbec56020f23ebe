//! What an endpoint is asked.

use crate::hook::{HookPurpose, HookRequest};

use super::json::{write_string, write_strings};

/// What of a request is told beside what always is.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// In lower case.
    pub(super) headers: Vec<String>,
    pub(super) peer_port: bool,
}

/// The body of the request to the endpoint.
pub(super) fn write(request: &HookRequest<'_>, told: &Told) -> String {
    let mut out = String::with_capacity(512);
    out.push_str("{\"purpose\":");
    write_string(
        &mut out,
        match request.purpose() {
            HookPurpose::Http => "http",
            HookPurpose::Upgrade => "upgrade",
        },
    );
    let peer = request.peer_addr();
    out.push_str(",\"peer\":{\"address\":");
    write_string(&mut out, &peer.ip().to_canonical().to_string());
    if told.peer_port {
        out.push_str(&format!(",\"port\":{}", peer.port()));
    }
    out.push_str("},\"tls\":");
    write_tls(&mut out, request);
    out.push_str(",\"vhost\":");
    write_string(&mut out, request.vhost_name());
    out.push_str(",\"method\":");
    write_string(&mut out, request.method());
    out.push_str(",\"path\":");
    write_string(&mut out, &request.path());
    out.push_str(",\"query\":");
    match request.query() {
        Some(query) => write_string(&mut out, query),
        None => out.push_str("null"),
    }
    out.push_str(",\"headers\":");
    write_headers(&mut out, request, &told.headers);
    out.push_str(",\"subprotocols\":");
    write_strings(&mut out, request.subprotocols());
    out.push('}');
    out
}

#[cfg(feature = "tls")]
fn write_tls(out: &mut String, request: &HookRequest<'_>) {
    if !request.is_tls() {
        return out.push_str("null");
    }
    let Some(peer) = request.peer_identity() else {
        return out.push_str("{\"identity\":null}");
    };
    out.push_str("{\"identity\":{\"verified\":");
    out.push_str(if peer.is_verified() { "true" } else { "false" });
    out.push_str(",\"common_name\":");
    match peer.common_name() {
        Some(name) => write_string(out, name),
        None => out.push_str("null"),
    }
    let (dns_names, uris) = (peer.dns_names(), peer.uri_names());
    out.push_str(",\"dns_names\":");
    write_strings(out, dns_names.iter().map(String::as_str));
    out.push_str(",\"uris\":");
    write_strings(out, uris.iter().map(String::as_str));
    out.push_str(",\"sha256\":");
    match peer.sha256() {
        Some(digest) => {
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            write_string(out, &hex);
        }
        None => out.push_str("null"),
    }
    out.push_str("}}");
}

#[cfg(not(feature = "tls"))]
fn write_tls(out: &mut String, _: &HookRequest<'_>) {
    out.push_str("null");
}

/// The chosen headers that are there, each as one string.
fn write_headers(out: &mut String, request: &HookRequest<'_>, names: &[String]) {
    out.push('{');
    let mut first = true;
    for name in names {
        let mut values = request.head().header_values(name).peekable();
        if values.peek().is_none() {
            continue;
        }
        if !std::mem::replace(&mut first, false) {
            out.push(',');
        }
        write_string(out, name);
        out.push(':');
        // RFC 9110 section 5.3; RFC 6265 section 5.4 for cookies.
        let between = if name == "cookie" { "; " } else { ", " };
        let texts: Vec<_> = values.map(text).collect();
        write_string(out, &texts.join(between));
    }
    out.push('}');
}

/// Bytes that are not UTF-8 are taken for ISO 8859-1, which they were once.
fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().copied().map(char::from).collect(),
    }
}
