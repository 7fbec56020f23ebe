//! Request heads and chunked bodies as a server gets them: every split of the same bytes gives the
//! same answer, and what is accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsloop::http::HeaderList;
use wsloop::http::auth::BasicRealm;
use wsloop::http::body::{BodyDecoder, BodyError, Framing};
use wsloop::http::conditional::{ETag, Validators};
use wsloop::http::date::{format_date, parse_date};
use wsloop::http::head::{
    HeadError, HeadLimits, HeadScanner, MAX_HEADERS, RequestHead, ResponseHead,
};
use wsloop::http::origin::{OriginPolicy, Transport};
use wsloop::http::path::SafePath;
use wsloop::http::range::{self, RangeAnswer};
use wsloop::ws::handshake::{accept_key, check_request, write_accept, write_refusal};

fuzz_target!(|bytes: &[u8]| {
    let mut small = HeadLimits::default();
    (small.bytes, small.headers, small.target) = (256, 5, 32);
    for limits in [HeadLimits::default(), small] {
        let whole = scan(bytes, [], &limits);
        assert_eq!(whole, scan(bytes, 0..bytes.len(), &limits));
        assert_eq!(whole, scan(bytes, cuts(bytes), &limits));
        if let Ok(Some(length)) = whole {
            check_head(&bytes[..length], &limits);
        }
        let _ = RequestHead::parse(bytes, &limits);
    }
    let whole = decode(bytes, []);
    assert_eq!(whole, decode(bytes, 0..bytes.len()));
    assert_eq!(whole, decode(bytes, cuts(bytes)));
});

fn scan(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    limits: &HeadLimits,
) -> Result<Option<usize>, HeadError> {
    let mut scanner = HeadScanner::request();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        match scanner.scan(&bytes[..cut], limits) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

fn check_head(bytes: &[u8], limits: &HeadLimits) {
    assert!(bytes.ends_with(b"\r\n\r\n") && bytes.len() <= limits.bytes);
    let head = match RequestHead::parse(bytes, limits) {
        Ok(head) => head,
        Err(error) => return assert!((400..=599).contains(&error.status())),
    };
    assert!(head.headers().count() <= limits.headers.min(MAX_HEADERS));
    assert!(head.target().len() <= limits.target);
    assert!(
        head.target()
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    );
    for (name, value) in head.headers() {
        assert!(HeaderList::new().push(name, value).is_ok());
    }
    check_fields(&head);
    let mut out = Vec::new();
    match check_request(&head) {
        Ok(upgrade) => {
            let key = head
                .header("sec-websocket-key")
                .expect("an upgrade has a key");
            assert_eq!(upgrade.accept, accept_key(key));
            let offered: Vec<_> = upgrade.offered().collect();
            let distinct: std::collections::BTreeSet<_> = offered.iter().collect();
            assert_eq!(offered.len(), distinct.len());
            write_accept(
                &mut out,
                &upgrade.accept,
                offered.first().copied(),
                &HeaderList::new(),
            );
        }
        Err(error) => write_refusal(&mut out, &error),
    }
    let limits = HeadLimits::default();
    let length = HeadScanner::response().scan(&out, &limits);
    let length = length
        .expect("our response is valid")
        .expect("our response is complete");
    assert!(ResponseHead::parse(&out[..length], &limits).is_ok());
}

/// What is read out of fields and paths keeps its promises, whatever was sent.
fn check_fields(head: &RequestHead<'_>) {
    match SafePath::parse(head.path()) {
        Ok(path) => {
            let plain = |name: &str| !name.contains(['/', '\\', ':', '\0']) && !name.is_empty();
            assert!(
                path.segments()
                    .all(|name| plain(name) && name != "." && name != "..")
            );
        }
        Err(error) => assert!(matches!(error.status(), 400 | 404)),
    }
    let complete = 1000;
    let mut behind = 0;
    let answer = range::answer(head.header_values("range"), complete);
    let parts = match &answer {
        RangeAnswer::One(part) => std::slice::from_ref(part),
        RangeAnswer::Several(parts) => parts,
        _ => &[],
    };
    for part in parts {
        assert!(behind <= part.start && part.start < part.end && part.end <= complete);
        behind = part.end;
    }
    for (_, value) in head.headers() {
        if let Some(seconds) = parse_date(value) {
            assert_eq!(parse_date(format_date(seconds).as_bytes()), Some(seconds));
        }
    }
    let etag = ETag::of_bytes(b"a");
    let _ = Validators::new(Some(&etag), Some(784_111_777)).judge(head.method(), head.fields());
    let _ = OriginPolicy::same_host().check(head, Transport::Tls);
    let realm = BasicRealm::new("a").expect("a realm");
    assert!(realm.authenticate(head.fields()).is_err());
}

fn decode(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut body, mut at) = (Vec::new(), 0);
    for cut in cuts.into_iter().chain([bytes.len()]) {
        while at < cut && !decoder.is_done() {
            let decoded = decoder.decode(&bytes[at..cut])?;
            assert!(decoded.consumed > 0);
            body.extend_from_slice(decoded.data);
            at += decoded.consumed;
        }
    }
    Ok((body, at, decoder.is_done()))
}

/// Growing offsets: the lengths of the pieces are bytes of the stream itself.
fn cuts(stream: &[u8]) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut end = 0;
    while let Some(&byte) = stream.get(end) {
        end += 1 + usize::from(byte) % 37;
        cuts.push(end.min(stream.len()));
    }
    cuts
}
