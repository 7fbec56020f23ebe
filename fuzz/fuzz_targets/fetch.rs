//! Responses and redirects as an HTTP client gets them: every split of the same bytes gives the
//! same response, a connection is kept only behind a whole one, and a `Location` leads to a URL
//! that can be asked for again.
#![no_main]

use std::mem::discriminant;

use libfuzzer_sys::fuzz_target;
use wsloop::http::client::{
    AbsoluteUrl, Eof, ResponseItem, ResponseReadError, ResponseReader, ResponseTo,
};
use wsloop::http::head::HeadLimits;

const BODY_CAP: u64 = 256;

#[derive(Debug, Default, PartialEq)]
struct Read {
    interim: usize,
    status: Option<u16>,
    location: Option<Vec<u8>>,
    body: Vec<u8>,
    used: usize,
    done: bool,
    keeps: bool,
}

fuzz_target!(|bytes: &[u8]| {
    for to in [ResponseTo::Other, ResponseTo::Head] {
        let whole = read(to, bytes, []);
        for cut in [
            read(to, bytes, 0..bytes.len()),
            read(to, bytes, cuts(bytes)),
        ] {
            match (&whole, &cut) {
                (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
                (Err(whole), Err(cut)) => assert_eq!(discriminant(whole), discriminant(cut)),
                (whole, cut) => panic!("{whole:?} {cut:?}"),
            }
        }
        let Ok(read) = whole else { continue };
        assert!(read.done || !read.keeps);
        assert!(read.body.len() as u64 <= BODY_CAP);
        if let Some(location) = read.location {
            follow(&location);
        }
    }
});

fn read(
    to: ResponseTo,
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Read, ResponseReadError> {
    let mut reader = ResponseReader::new(to, HeadLimits::default(), BODY_CAP);
    let mut read = Read::default();
    for cut in cuts.into_iter().chain([bytes.len()]) {
        while read.used <= cut {
            let progress = reader.next(&bytes[read.used..cut])?;
            read.used += progress.consumed;
            match progress.item {
                None => break,
                Some(ResponseItem::Interim(_)) => read.interim += 1,
                Some(ResponseItem::Head(head)) => {
                    read.status = Some(head.status());
                    read.location = head.header("location").map(<[u8]>::to_vec);
                }
                Some(ResponseItem::Data(data)) => read.body.extend_from_slice(data),
                Some(ResponseItem::End) => read.done = true,
                Some(_) => {}
            }
        }
    }
    read.keeps = reader.keeps_connection();
    assert_eq!(read.done, reader.is_done());
    let ends = reader.ends_with_connection();
    assert!(reader.clone().end(Eof::Truncated).is_err() || read.done);
    assert!(reader.end(Eof::Orderly).is_err() || read.done || ends);
    Ok(read)
}

fn follow(location: &[u8]) {
    let base = AbsoluteUrl::parse("https://a.test:8443/b/c?d").expect("it is a URL");
    let Ok(next) = base.join(location) else {
        return;
    };
    let text = next.to_string();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    assert!(next.target().starts_with('/') && !text.contains(['#', '\\']));
    assert_eq!(AbsoluteUrl::parse(&text).as_ref(), Ok(&next));
    assert_eq!(base.join(text.as_bytes()), Ok(next));
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
