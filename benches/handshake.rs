//! The opening handshake: finding, parsing, checking and answering heads, without I/O.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wsloop::http::HeaderList;
use wsloop::http::head::{HeadLimits, HeadScanner, RequestHead, ResponseHead};
use wsloop::ws::handshake::{
    ResponseScanner, accept_key, check_request, check_response, write_accept,
};

/// What a browser sends.
const REQUEST: &[u8] = b"GET /chat?room=1 HTTP/1.1\r\n\
    Host: server.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: */*\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Origin: http://server.example.com\r\n\
    Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Connection: keep-alive, Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    Upgrade: websocket\r\n\r\n";

const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";

const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Server: example\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Protocol: chat.v2\r\n\r\n";

fn heads(c: &mut Criterion) {
    let limits = HeadLimits::default();
    c.bench_function("request scan", |b| {
        b.iter(|| HeadScanner::request().scan(black_box(REQUEST), &limits));
    });
    c.bench_function("request scan, byte by byte", |b| {
        b.iter(|| {
            let mut scanner = HeadScanner::request();
            (1..=REQUEST.len())
                .find_map(|end| scanner.scan(black_box(&REQUEST[..end]), &limits).ok()?)
        });
    });
    c.bench_function("request parse", |b| {
        b.iter(|| {
            let head = RequestHead::parse(black_box(REQUEST), &limits);
            black_box(&head);
        });
    });
    c.bench_function("response parse", |b| {
        b.iter(|| {
            let head = ResponseHead::parse(black_box(RESPONSE), &limits);
            black_box(&head);
        });
    });
}

fn handshakes(c: &mut Criterion) {
    let limits = HeadLimits::default();
    c.bench_function("accept key", |b| b.iter(|| accept_key(black_box(KEY))));
    let (mut out, none) = (Vec::with_capacity(1024), HeaderList::new());
    c.bench_function("upgrade, server side", |b| {
        b.iter(|| {
            let length = HeadScanner::request()
                .scan(black_box(REQUEST), &limits)
                .ok()??;
            let head = RequestHead::parse(REQUEST.get(..length)?, &limits).ok()?;
            let upgrade = check_request(&head).ok()?;
            out.clear();
            write_accept(&mut out, &upgrade.accept, upgrade.offered().next(), &none);
            Some(out.len())
        });
    });
    let offered = ["chat.v2".to_owned()];
    c.bench_function("upgrade, client side", |b| {
        b.iter(|| {
            let range = ResponseScanner::new()
                .scan(black_box(RESPONSE), &limits)
                .ok()??;
            let head = ResponseHead::parse(RESPONSE.get(range)?, &limits).ok()?;
            check_response(&head, KEY, &offered).ok()?.map(str::len)
        });
    });
}

criterion_group!(benches, heads, handshakes);
criterion_main!(benches);
