//! Bodies in both directions: framed, streamed, paused, cut, too long, answered too early.

use wsloop::http::client::Method;
use wsloop::{FetchAbort, FetchFailure, FetchInfo, FetchStage, FetchWriteError};

use crate::common::{OK, Site, Told, URL, get, read, response};

#[test]
fn every_framing_is_collected_in_every_split() {
    for (answer, ends) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello world", true),
    ] {
        for step in [1, 2, 7, answer.len()] {
            let mut site = Site::new();
            site.get();
            let peer = site.accept();
            for piece in answer.as_bytes().chunks(step) {
                peer.write(piece).unwrap();
                site.turn();
            }
            if ends {
                assert!(site.keeper.outcomes().is_empty());
                peer.shutdown_write();
                site.turn();
            }
            let done = site.keeper.fetched();
            assert_eq!(done.body, b"hello world", "{answer:?} by {step}");
            assert!(done.header("x-t").is_none(), "trailers are dropped");
            assert_eq!(site.counts().1, usize::from(!ends));
        }
    }
}

#[test]
fn ht_22_a_body_that_is_cut_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut site = Site::new();
        site.get();
        let peer = site.accept();
        site.answer(&peer, answer.as_bytes());
        drop(peer);
        site.turn();
        let error = site.keeper.error();
        assert_eq!(error.stage(), FetchStage::Body, "{answer:?}");
        assert!(matches!(error.failure(), FetchFailure::Response(_)));
        assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
    }
    let mut site = Site::new();
    site.get();
    let peer = site.accept();
    site.answer(&peer, b"HTTP/1.1 200 OK\r\n\r\nhello");
    peer.reset();
    site.turn();
    let error = site.keeper.error();
    assert!(matches!(error.failure(), FetchFailure::Io(_)), "{error}");
}

#[test]
fn ht_26_a_response_that_two_readers_could_cut_differently_is_refused() {
    for fields in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 2",
        "Transfer-Encoding: gzip, chunked",
    ] {
        let mut site = Site::new();
        site.get();
        let peer = site.accept();
        site.answer(
            &peer,
            format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok").as_bytes(),
        );
        let error = site.keeper.error();
        assert!(
            matches!(error.failure(), FetchFailure::Response(_)),
            "{error}"
        );
        assert!(!error.is_retryable());
        assert!(peer.ended() || peer.was_reset());
    }
}

#[test]
fn a_body_over_the_limit_is_an_error_and_the_connection_goes() {
    let mut site = Site::new();
    site.fetch(get().max_body(4));
    let peer = site.accept();
    site.answer(&peer, &response("200 OK", "", "hello"));
    let error = site.keeper.error();
    assert!(error.to_string().contains("limit of 4 bytes"), "{error}");
    assert_eq!(site.context.connections(), 0);
    site.get();
    let peer = site.accept();
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n";
    site.answer(&peer, long.as_bytes());
    let error = site.keeper.error();
    assert!(
        error.to_string().contains("limit of 1048576 bytes"),
        "{error}"
    );
}

#[test]
fn a_streamed_body_comes_as_it_arrives_and_is_not_collected() {
    let mut site = Site::new();
    site.fetch(get().streamed());
    let peer = site.accept();
    site.answer(
        &peer,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    let told = site.keeper.take();
    assert!(
        matches!(&told[..], [Told::Head(200), Told::Data(data)] if data == b"abc"),
        "{told:?}"
    );
    peer.write(b"2\r\nde\r\n0\r\n\r\n").unwrap();
    site.turn();
    let told = site.keeper.take();
    let [Told::Data(data), Told::Done(Ok(done))] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((data.as_slice(), done.body.len()), (b"de".as_slice(), 0));
    assert_eq!(site.counts(), (1, 1, 0));
}

#[test]
fn a_paused_response_waits_and_nothing_of_it_is_lost() {
    let mut site = Site::new();
    site.keeper.set(|acts| {
        acts.body = Some(Box::new(|cx, id| {
            cx.pause_fetch(id).unwrap();
            Ok(())
        }));
    });
    let id = site.fetch(get().streamed());
    let peer = site.accept();
    site.answer(
        &peer,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
    );
    peer.shutdown_write();
    site.turn();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let told = site.keeper.take();
        let data = told.iter().filter_map(|told| match told {
            Told::Data(data) => Some(data.clone()),
            _ => None,
        });
        let data: Vec<_> = data.collect();
        assert_eq!(data.len(), 1, "{told:?}");
        seen.extend(data.concat());
        site.cx(|cx| cx.resume_fetch(id)).unwrap();
    }
    assert_eq!(seen, b"abc");
    assert!(site.keeper.fetched().is_success());
    assert_eq!(
        site.context.connections(),
        0,
        "the peer had ended its stream"
    );
}

#[test]
fn head_204_and_304_have_no_body_and_keep_their_connection() {
    for (method, answer) in [
        (
            Method::HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
        ),
        (Method::GET, "HTTP/1.1 204 None\r\n\r\n"),
        (
            Method::GET,
            "HTTP/1.1 304 Same\r\nContent-Length: 500\r\n\r\n",
        ),
    ] {
        let mut site = Site::new();
        site.fetch(FetchInfo::new(method, URL).unwrap());
        let peer = site.accept();
        site.answer(&peer, answer.as_bytes());
        assert!(site.keeper.fetched().body.is_empty());
        assert_eq!(site.counts(), (1, 1, 0), "{answer:?}");
    }
}

#[test]
fn interim_responses_are_told_and_then_the_final_one() {
    let mut site = Site::new();
    site.get();
    let peer = site.accept();
    site.answer(
        &peer,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n",
    );
    peer.write(b"Content-Length: 0\r\n\r\n").unwrap();
    site.turn();
    let told = site.keeper.take();
    assert!(
        matches!(
            told[..],
            [Told::Interim(103), Told::Head(200), Told::Done(Ok(_))]
        ),
        "{told:?}"
    );
}

#[test]
fn a_streamed_request_body_is_framed_as_it_was_declared() {
    for (length, expected) in [
        (
            None,
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        (Some(5), "Content-Length: 5\r\n\r\nabcde"),
    ] {
        let mut site = Site::new();
        let id = site.fetch(
            FetchInfo::new(Method::POST, URL)
                .unwrap()
                .streamed_body(length),
        );
        let told = site.keeper.take();
        assert!(matches!(told[..], [Told::Writable]), "{told:?}");
        let peer = site.accept();
        site.cx(|cx| cx.fetch_write(id, b"abc")).unwrap();
        site.cx(|cx| {
            cx.fetch_write(id, b"de").unwrap();
            cx.fetch_finish(id).unwrap();
        });
        let request = site.answer(&peer, OK);
        assert!(request.ends_with(expected), "{request}");
        assert!(site.keeper.fetched().is_success());
        assert_eq!(site.counts(), (1, 1, 0));
        assert_eq!(
            site.cx(|cx| cx.fetch_write(id, b"x")),
            Err(FetchWriteError::Gone)
        );
    }
}

#[test]
fn a_streamed_request_body_may_begin_before_the_connection_is_there() {
    let mut site = Site::new();
    let info = FetchInfo::new(Method::PUT, URL)
        .unwrap()
        .streamed_body(Some(4));
    let vhost = site.vhost;
    site.cx(|cx| {
        let id = cx.fetch(vhost, info).unwrap();
        cx.fetch_write(id, b"abcd").unwrap();
        cx.fetch_finish(id).unwrap();
    });
    let peer = site.accept();
    let request = site.answer(&peer, OK);
    assert!(request.ends_with("\r\n\r\nabcd"), "{request}");
    assert!(site.keeper.fetched().is_success());
}

#[test]
fn a_request_body_is_never_longer_or_shorter_than_declared() {
    let mut site = Site::new();
    let id = site.fetch(
        FetchInfo::new(Method::POST, URL)
            .unwrap()
            .streamed_body(Some(3)),
    );
    site.cx(|cx| {
        assert!(matches!(
            cx.fetch_write(id, b"abcd"),
            Err(FetchWriteError::Body(_))
        ));
        cx.fetch_write(id, b"ab").unwrap();
        assert!(matches!(cx.fetch_finish(id), Err(FetchWriteError::Body(_))));
        cx.fetch_write(id, b"c").unwrap();
        cx.fetch_finish(id).unwrap();
        assert!(cx.fetch_write(id, b"d").is_err());
    });
    let other = site.get();
    assert_eq!(
        site.cx(|cx| cx.fetch_write(other, b"x")),
        Err(FetchWriteError::NotStreamed)
    );
}

#[test]
fn a_peer_that_does_not_read_holds_the_writer_back() {
    let mut site = Site::new();
    site.net.set_capacity(1000);
    let written = std::sync::Arc::new(std::sync::Mutex::new(0));
    let count = std::sync::Arc::clone(&written);
    site.keeper.set(|acts| {
        acts.writable = Some(Box::new(move |cx, id| {
            cx.fetch_write(id, &[b'x'; 100_000]).unwrap();
            *count.lock().unwrap() += 100_000;
            cx.request_fetch_writable(id).unwrap();
            Ok(())
        }));
    });
    let id = site.fetch(
        FetchInfo::new(Method::POST, URL)
            .unwrap()
            .streamed_body(None),
    );
    assert_eq!(
        *written.lock().unwrap(),
        100_000,
        "over the low water mark nobody is asked"
    );
    let full = site.cx(|cx| {
        let full = std::iter::repeat_with(|| cx.fetch_write(id, &[0; 100_000]));
        full.take(20).find_map(Result::err)
    });
    assert!(
        matches!(full, Some(FetchWriteError::Full { .. })),
        "{full:?}"
    );
    let peer = site.accept();
    for _ in 0..3000 {
        peer.read();
        site.context
            .service(Some(std::time::Duration::ZERO))
            .unwrap();
    }
    assert!(*written.lock().unwrap() > 200_000);
}

#[test]
fn a_refusal_that_comes_early_stops_the_upload_and_costs_the_connection() {
    let mut site = Site::new();
    let id = site.fetch(
        FetchInfo::new(Method::POST, URL)
            .unwrap()
            .streamed_body(Some(1000)),
    );
    let peer = site.accept();
    site.cx(|cx| cx.fetch_write(id, b"abc")).unwrap();
    read(&peer);
    peer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nlo")
        .unwrap();
    site.turn();
    assert_eq!(
        site.cx(|cx| cx.fetch_write(id, b"x")),
        Err(FetchWriteError::Gone)
    );
    peer.write(b"ng").unwrap();
    site.turn();
    assert_eq!(read(&peer), "");
    let done = site.keeper.fetched();
    assert_eq!(
        (done.status, done.body.as_slice()),
        (413, b"long".as_slice())
    );
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}

#[test]
fn a_success_that_comes_early_lets_the_upload_go_on() {
    let mut site = Site::new();
    let info = FetchInfo::new(Method::POST, URL)
        .unwrap()
        .streamed_body(None)
        .streamed();
    let id = site.fetch(info);
    let peer = site.accept();
    read(&peer);
    peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    site.turn();
    site.cx(|cx| cx.fetch_write(id, b"ping")).unwrap();
    assert_eq!(read(&peer), "4\r\nping\r\n");
    peer.write(b"4\r\npong\r\n").unwrap();
    site.turn();
    site.cx(|cx| cx.fetch_finish(id)).unwrap();
    peer.write(b"0\r\n\r\n").unwrap();
    site.turn();
    let told = site.keeper.take();
    assert!(matches!(told.last(), Some(Told::Done(Ok(_)))), "{told:?}");
    assert_eq!(site.counts(), (1, 1, 0), "both directions are complete");
}

#[test]
fn a_refusal_is_read_although_the_peer_does_not_take_the_body() {
    let mut site = Site::new();
    site.net.set_capacity(1000);
    site.fetch(FetchInfo::post(URL, vec![b'x'; 100_000]).unwrap());
    let peer = site.accept();
    peer.write(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nlo")
        .unwrap();
    site.turn();
    assert!(read(&peer).len() <= 1000);
    site.turn();
    assert_eq!(read(&peer), "", "it stops sending");
    peer.write(b"ng").unwrap();
    site.turn();
    assert_eq!(site.keeper.fetched().status, 401);
    assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
}

#[test]
fn a_callback_can_give_the_request_up() {
    for act in ["response", "body", "writable"] {
        let mut site = Site::new();
        site.keeper.set(|acts| {
            let place = match act {
                "response" => &mut acts.response,
                "body" => &mut acts.body,
                _ => &mut acts.writable,
            };
            *place = Some(Box::new(|_, _| Err(FetchAbort)));
        });
        let info = FetchInfo::new(Method::POST, URL).unwrap().streamed();
        let streams = act == "writable";
        site.fetch(if streams {
            info.streamed_body(None)
        } else {
            info
        });
        if !streams {
            let peer = site.accept();
            site.answer(&peer, OK);
        }
        let error = site.keeper.error();
        assert!(
            matches!(error.failure(), FetchFailure::Aborted),
            "{act}: {error}"
        );
        assert_eq!((site.counts(), site.context.connections()), ((0, 0, 0), 0));
    }
}

#[test]
fn a_response_that_is_paused_at_its_end_is_complete_when_it_is_resumed() {
    for (answer, in_body) in [
        (OK, true),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".as_slice(),
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".as_slice(),
            false,
        ),
    ] {
        let mut site = Site::new();
        site.keeper.set(|acts| {
            let pause = Box::new(|cx: &mut wsloop::Cx<'_>, id| {
                cx.pause_fetch(id).unwrap();
                Ok(())
            });
            *(if in_body {
                &mut acts.body
            } else {
                &mut acts.response
            }) = Some(pause);
        });
        let id = site.fetch(get().streamed());
        let peer = site.accept();
        site.answer(&peer, answer);
        site.turn();
        // It may be over already: then there was nothing left to hold back.
        let _ = site.cx(|cx| cx.resume_fetch(id));
        site.turn();
        assert!(site.keeper.fetched().is_success());
        assert_eq!(site.counts(), (1, 1, 0));
    }
}
