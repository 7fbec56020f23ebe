//! Responses to an upgrade request as a client gets them: every split of the same bytes gives the
//! same answer, and nothing is taken that comes after the head.
#![no_main]

use std::mem::discriminant;
use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use wsloop::http::head::{HeadLimits, ResponseHead};
use wsloop::ws::handshake::{
    Refusal, RefusalCollector, ResponseError, ResponseScanner, accept_key, check_response,
};

const KEY: &[u8; 24] = b"dGhlIHNhbXBsZSBub25jZQ==";
const BODY_CAP: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let limits = HeadLimits::default();
    let whole = scan(bytes, [], &limits);
    assert_same(&whole, &scan(bytes, 0..bytes.len(), &limits));
    assert_same(&whole, &scan(bytes, cuts(bytes), &limits));
    let Ok(Some(range)) = whole else { return };
    assert!(bytes[range.clone()].ends_with(b"\r\n\r\n"));
    let head = ResponseHead::parse(&bytes[range.clone()], &limits).expect("the scanner parsed it");
    let offered = ["chat".to_owned(), "a".to_owned()];
    match check_response(&head, KEY, &offered) {
        Ok(chosen) => {
            assert_eq!(
                head.header("sec-websocket-accept"),
                Some(accept_key(KEY).as_slice())
            );
            assert!(chosen.is_none_or(|name| offered.iter().any(|offer| offer == name)));
        }
        Err(ResponseError::Refused { status }) => {
            assert!(status != 101 && status >= 200);
            let body = &bytes[range.end..];
            let whole = collect(&head, body, []);
            assert_eq!(whole, collect(&head, body, 0..body.len()));
            assert_eq!(whole, collect(&head, body, cuts(body)));
            assert!(whole.body.len() <= BODY_CAP);
        }
        Err(_) => {}
    }
});

fn scan(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    limits: &HeadLimits,
) -> Result<Option<Range<usize>>, ResponseError> {
    let mut scanner = ResponseScanner::new();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        match scanner.scan(&bytes[..cut], limits) {
            Ok(None) => {}
            answer => return answer,
        }
    }
    Ok(None)
}

/// The excerpt in `NotHttp` shows what had come, so it alone may differ between splits.
fn assert_same(
    whole: &Result<Option<Range<usize>>, ResponseError>,
    cut: &Result<Option<Range<usize>>, ResponseError>,
) {
    match (whole, cut) {
        (
            Err(ResponseError::NotHttp { guess: a, .. }),
            Err(ResponseError::NotHttp { guess: b, .. }),
        ) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(discriminant(a), discriminant(b)),
        (a, b) => assert_eq!(a, b),
    }
}

fn collect(head: &ResponseHead<'_>, body: &[u8], cuts: impl IntoIterator<Item = usize>) -> Refusal {
    let mut collector = RefusalCollector::new(head, BODY_CAP);
    let mut at = 0;
    for cut in cuts.into_iter().chain([body.len()]) {
        collector.push(&body[at..cut]);
        at = cut;
    }
    collector.finish_at_eof()
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
