//! What applications do inside and outside of callbacks.

use std::panic::resume_unwind;
use std::sync::MutexGuard;
use std::time::Duration;

use bytes::Bytes;
use wsloop::http::client::Method;
use wsloop::{
    ClientConnectInfo, Close, CloseCode, Cx, FetchInfo, FetchTimeouts, Fin, HookAnswer, HookError,
    Message, MessageKind, Peer, PoolConfig, Refuse, Response, RetryPolicy, SendError, TimerTag,
    Wsi, WsiId,
};

use super::model::{Digest, Life, MESSAGE_BYTES, Model, Node, Request, Shared, Timer, Victim};
use super::model::{payload, some_length};
use super::world;

/// What a scripted panic carries.
pub(crate) struct Scripted;

/// Leaves the callback as a bug in an application would, without a message.
pub(crate) fn panic_now(mut model: MutexGuard<'_, Model>, victim: Victim) -> ! {
    model.note(format!("   panics: {victim:?}"));
    model.victims.push(victim);
    drop(model);
    resume_unwind(Box::new(Scripted))
}

/// Whether a callback panics now.
pub(crate) fn wants_panic(model: &mut Model) -> bool {
    model.budget > 0 && model.harms() && model.rng.once_in(150)
}

pub(crate) fn some_close(model: &mut Model) -> Close {
    let code = model.rng.pick(&[1000, 1001, 1008, 1011, 3000, 4999]);
    Close::new(CloseCode::new(code).unwrap(), "by chance")
}

fn some_kind(model: &mut Model) -> MessageKind {
    model.rng.pick(&[MessageKind::Binary, MessageKind::Text])
}

fn some_payload(model: &mut Model) -> (MessageKind, Vec<u8>) {
    let kind = some_kind(model);
    let len = model.some_length();
    (kind, payload(&mut model.rng, kind, len))
}

pub(crate) fn message(kind: MessageKind, bytes: &[u8]) -> Message<'_> {
    match kind {
        MessageKind::Binary => Message::Binary(bytes),
        MessageKind::Text => Message::Text(std::str::from_utf8(bytes).unwrap()),
    }
}

/// Something that only a connection's own callback can do.
pub(crate) fn to_itself(shared: &Shared, node: Node, wsi: &mut Wsi<'_>, open: &mut Fragment) {
    let mut model = shared.lock();
    let id = wsi.id();
    let fierce = model.harms();
    match model.rng.below(17) {
        0..=2 => send(&mut model, node, wsi),
        16 => burst(&mut model, node, wsi),
        3 => send_bytes(&mut model, node, wsi),
        4 => send_string(&mut model, node, wsi),
        5..=7 => open.go_on(&mut model, node, wsi),
        8 => {
            wsi.request_writable();
            let conn = model.open(node, id);
            conn.writable |= !conn.closing;
        }
        9 => drop(wsi.send_ping(b"are you there?")),
        10 => {
            wsi.pause_reading();
            model.open(node, id).paused = true;
        }
        11 => {
            wsi.resume_reading();
            model.open(node, id).paused = false;
        }
        12 => {
            let (after, tag) = some_timer(&mut model);
            let due = wsi.now() + after;
            let timer = wsi.set_timer(after, TimerTag(tag));
            let timer = Timer {
                node,
                conn: Some(id),
                due,
                id: timer,
            };
            model.timers.insert(tag, timer);
        }
        13 if fierce => {
            let close = some_close(&mut model);
            wsi.close(close);
            model.open(node, id).closing = true;
            let after = wsi.send_text("too late");
            assert!(after.is_err(), "a send after the close: {after:?}");
        }
        14 if fierce && model.rng.once_in(2) => {
            wsi.abort();
            model.open(node, id).closing = true;
        }
        _ => {
            drop(model);
            from_anywhere(shared, node, wsi.cx());
        }
    }
}

fn some_timer(model: &mut Model) -> (Duration, u64) {
    let millis = model.rng.pick(&[0, 1, 20, 300, 5000]);
    (Duration::from_millis(millis), model.tag())
}

fn send(model: &mut Model, node: Node, wsi: &mut Wsi<'_>) {
    let (kind, bytes) = some_payload(model);
    let message = message(kind, &bytes);
    if wsi.send(message).is_ok() {
        model.sent(node, wsi.id(), Digest::of(message));
    }
}

/// Many short messages, until the queue is full or that was all.
fn burst(model: &mut Model, node: Node, wsi: &mut Wsi<'_>) {
    let (most, len) = (
        model.rng.below(60),
        model.rng.pick(&[0, 20, 125, 126, 2000]),
    );
    let bytes = payload(&mut model.rng, MessageKind::Text, len);
    let message = message(MessageKind::Text, &bytes);
    for _ in 0..most {
        let before = wsi.buffered_out();
        if wsi.send(message).is_err() {
            return;
        }
        check_queue(model, before, wsi.buffered_out());
        model.sent(node, wsi.id(), Digest::of(message));
    }
}

/// A message that did not come first is in the queue only if there was room for it.
fn check_queue(model: &Model, before: usize, after: usize) {
    let most = model.output_bytes + HEADER;
    assert!(
        before == 0 || after <= most,
        "{after} bytes wait, {before} before"
    );
}

/// Sends back what came, or a part of it, from where it lies.
pub(crate) fn send_back(
    model: &mut Model,
    node: Node,
    wsi: &mut Wsi<'_>,
    came: Message<'_>,
    whole: Digest,
) {
    let part = match came {
        Message::Binary(bytes) if model.rng.once_in(4) => {
            let (_, behind) = bytes.split_at(model.rng.below(bytes.len() + 1));
            Some(Message::Binary(behind))
        }
        _ => None,
    };
    let (message, digest) = part.map_or((came, whole), |part| (part, Digest::of(part)));
    for _ in 0..model.rng.pick(&[1, 1, 1, 2, 3]) {
        let before = wsi.buffered_out();
        if wsi.send(message).is_ok() {
            check_queue(model, before, wsi.buffered_out());
            model.sent(node, wsi.id(), digest);
        }
    }
    match model.rng.below(12) {
        0 => give_all(model, node, wsi.cx(), message),
        1 | 2 => burst(model, node, wsi),
        _ => {}
    }
}

fn send_bytes(model: &mut Model, node: Node, wsi: &mut Wsi<'_>) {
    let len = model.some_length();
    let bytes = Bytes::from(payload(&mut model.rng, MessageKind::Binary, len));
    let digest = Digest::of(Message::Binary(&bytes));
    if wsi.send_bytes(bytes).is_ok() {
        model.sent(node, wsi.id(), digest);
    }
}

fn send_string(model: &mut Model, node: Node, wsi: &mut Wsi<'_>) {
    let len = model.some_length();
    let text = String::from_utf8(payload(&mut model.rng, MessageKind::Text, len)).unwrap();
    let digest = Digest::of(Message::Text(&text));
    if wsi.send_string(text).is_ok() {
        model.sent(node, wsi.id(), digest);
    }
}

/// The fragmented message that a connection is sending.
#[derive(Default)]
pub(crate) struct Fragment(Option<Digest>);

impl Fragment {
    fn go_on(&mut self, model: &mut Model, node: Node, wsi: &mut Wsi<'_>) {
        let kind = self.0.map_or_else(|| some_kind(model), |open| open.kind);
        // Cutting text anywhere is somebody else's test.
        let len = model.rng.pick(&[0, 1, 100, 5000, MESSAGE_BYTES]);
        let bytes = match kind {
            MessageKind::Binary => payload(&mut model.rng, kind, len),
            MessageKind::Text => vec![b'f'; len],
        };
        let mut digest = self.0.unwrap_or_else(|| Digest::new(kind));
        let full = digest.len + len > model.longest;
        let fin = match full || model.rng.once_in(3) {
            true => Fin::Last,
            false => Fin::More,
        };
        let bytes = if full { &[][..] } else { &bytes };
        match wsi.send_fragment(kind, bytes, fin) {
            Ok(_) => digest.add(bytes),
            Err(error) => {
                assert!(!matches!(error, SendError::FragmentOpen), "it is ours");
                return;
            }
        }
        self.0 = match fin {
            Fin::More => Some(digest),
            Fin::Last => {
                model.sent(node, wsi.id(), digest);
                None
            }
        };
    }
}

/// Something that any callback can do, and the program outside of callbacks.
pub(crate) fn from_anywhere(shared: &Shared, node: Node, cx: &mut Cx<'_>) {
    let mut model = shared.lock();
    let fierce = model.harms();
    match model.rng.below(24) {
        0..=3 => connect(&mut model, node, cx),
        4..=6 => fetch(&mut model, node, cx),
        7..=9 => to_another(&mut model, node, cx),
        10 => broadcast(&mut model, node, cx),
        11 => {
            let (after, tag) = some_timer(&mut model);
            let due = cx.now() + after;
            let id = cx.set_timer(after, TimerTag(tag));
            let conn = None;
            let timer = Timer {
                node,
                conn,
                due,
                id,
            };
            model.timers.insert(tag, timer);
        }
        12 => cancel_timer(&mut model, node, cx),
        13 | 14 => touch_fetch(&mut model, node, cx),
        15 => answer_questions(&mut model, node, cx, 1),
        16 => decide(&mut model, node, cx, 1),
        17 | 18 => respond(&mut model, node, cx, 1),
        19 if fierce => end_another(&mut model, node, cx),
        20 if fierce && model.rng.once_in(2) => {
            let config = world::another_vhost(shared, &mut model, node);
            let made = cx.create_vhost(config);
            model.vhosts.extend(made.map(|id| (node, id)));
        }
        21 if fierce && model.rng.once_in(2) => {
            let vhosts = model.vhosts.iter().filter(|(own, _)| *own == node);
            // The first one is what the test stands on.
            let vhosts: Vec<_> = vhosts.skip(1).copied().collect();
            if let Some((_, id)) = vhosts.last() {
                model.note(format!("{node} destroys {id:?}"));
                let _ = cx.destroy_vhost(*id);
            }
        }
        22 if fierce && model.step > 150 && model.rng.once_in(20) => {
            model.note(format!("{node} shuts down"));
            cx.shutdown(Duration::from_millis(700));
        }
        _ => {}
    }
}

fn cancel_timer(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    let own = |timer: &&Timer| timer.node == node && timer.id.is_some();
    let count = model.timers.values().filter(own).count();
    if count == 0 {
        return;
    }
    let nth = model.rng.below(count);
    let mut all = model.timers.iter().filter(|(_, timer)| own(timer));
    let (tag, id) = all
        .nth(nth)
        .map(|(tag, timer)| (*tag, timer.id.unwrap()))
        .unwrap();
    if cx.cancel_timer(id) {
        model.timers.remove(&tag);
    }
}

fn some_conn(model: &mut Model, node: Node) -> Option<(WsiId, Life)> {
    let own: Vec<_> = model
        .conns
        .iter()
        .filter(|(key, _)| key.0 == node)
        .collect();
    let recent = own.len().min(12);
    if recent == 0 {
        return None;
    }
    let own: Vec<_> = own[own.len() - recent..]
        .iter()
        .map(|(key, conn)| (key.1, conn.life))
        .collect();
    Some(model.rng.pick(&own))
}

/// Reaches for another connection of the protocol: a stale id finds nobody.
fn to_another(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    let Some((id, life)) = some_conn(model, node) else {
        return;
    };
    let Some(mut peer) = cx.peer(id) else {
        return;
    };
    assert_eq!(life, Life::Open, "{node} {id}: a peer that is not there");
    match model.rng.below(5) {
        0..=2 => send_to(model, node, &mut peer),
        3 => {
            peer.request_writable();
            let conn = model.open(node, id);
            conn.writable |= !conn.closing;
        }
        _ => {
            let pause = model.rng.once_in(2);
            match pause {
                true => peer.pause_reading(),
                false => peer.resume_reading(),
            }
            model.open(node, id).paused = pause;
        }
    }
}

fn send_to(model: &mut Model, node: Node, peer: &mut Peer<'_>) {
    let (kind, bytes) = some_payload(model);
    let message = message(kind, &bytes);
    if peer.send(message).is_ok() {
        model.sent(node, peer.id(), Digest::of(message));
    }
}

fn end_another(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    let Some((id, life)) = some_conn(model, node) else {
        return;
    };
    let ended = match model.rng.below(2) {
        0 => cx.abort(id),
        _ => {
            let close = some_close(model);
            cx.close(id, close)
        }
    };
    model.note(format!("{node} ends {id}, {life:?}: {ended:?}"));
    match life {
        Life::Attempt => {}
        Life::Open => {
            assert!(ended.is_ok(), "{node} {id} is open");
            model.open(node, id).closing = true;
        }
        Life::Over => assert!(ended.is_err(), "{node} {id} is over"),
    }
}

fn broadcast(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    let (kind, bytes) = some_payload(model);
    give_all(model, node, cx, message(kind, &bytes));
}

fn give_all(model: &mut Model, node: Node, cx: &mut Cx<'_>, message: Message<'_>) {
    let before = buffered(cx);
    let mut asked = 0;
    let outcome = cx.broadcast(message, |_| {
        asked += 1;
        true
    });
    let after = buffered(cx);
    let taken = after.iter().zip(&before);
    let taken: Vec<_> = taken.filter(|(after, before)| after != before).collect();
    assert_eq!(taken.len(), outcome.queued, "who has the message");
    let refused = outcome.full + outcome.closing + outcome.too_large;
    assert_eq!(asked, outcome.queued + refused, "{outcome:?}");
    for ((id, _), _) in taken {
        model.sent(node, *id, Digest::of(message));
    }
}

/// What waits on each connection.
fn buffered(cx: &mut Cx<'_>) -> Vec<(WsiId, usize)> {
    let mut all = Vec::new();
    cx.for_each_peer(|peer| all.push((peer.id(), peer.buffered_out())));
    all
}

/// Sends to some of the protocol's connections from outside.
pub(crate) fn talk(shared: &Shared, node: Node, cx: &mut Cx<'_>) {
    let mut model = shared.lock();
    cx.for_each_peer(|mut peer| {
        for _ in 0..model.rng.below(3) {
            send_to(&mut model, node, &mut peer);
        }
    });
}

pub(crate) fn connect(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    let alive = model.conns.values();
    let alive = alive.filter(|conn| conn.life != Life::Over).count();
    if alive > 24 {
        return;
    }
    let url = format!("{}?w={}", some_target(model, node, "ws"), model.tag());
    let mut info = ClientConnectInfo::from_url(&url).unwrap();
    match model.rng.below(5) {
        0 => info = info.no_deflate(),
        1 => info = info.subprotocols(["c", "p"]).unwrap(),
        2 => info = info.local_protocol("c").unwrap(),
        _ => {}
    }
    if model.rng.once_in(4) {
        info = info.reconnect(policy());
    }
    let own: Vec<_> = model
        .vhosts
        .iter()
        .filter(|(own, _)| *own == node)
        .collect();
    let main = own[0].1;
    let vhost = match model.rng.once_in(5) {
        true => own[own.len() - 1].1,
        false => main,
    };
    let begun = cx.client_connect(vhost, info);
    model.note(format!("{node} dials {url}: {:?}", begun.as_ref().ok()));
    if let Ok(id) = begun {
        model.attempt(node, id);
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy::builder()
        .delays([Duration::from_millis(100), Duration::from_secs(1)])
        .conceal_count(2)
        .build()
        .unwrap()
}

fn some_target(model: &mut Model, node: Node, scheme: &str) -> String {
    let other = 1 - node;
    let choices = if model.harms() { 14 } else { 8 };
    match model.rng.below(choices) {
        0..=4 => format!("{scheme}://n{other}.test/"),
        5..=6 if model.tls => format!("{scheme}s://n{other}.test/"),
        7 => format!("{scheme}://n{node}.test/"),
        8 | 9 => format!("{scheme}://10.0.0.9/"),
        10 => format!("{scheme}://10.0.0.8/"),
        11 => format!("{scheme}://slow.test/"),
        12 => format!("{scheme}://unknown.test/"),
        13 => format!("{scheme}://several.test/"),
        _ => format!("{scheme}://x.test/"),
    }
}

fn fetch(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    if model.fetches.len() > 12 {
        return;
    }
    let target = model.rng.pick(&["h", "h", "h", "h/x", "missing", ""]);
    let url = some_target(model, node, "http");
    let url = format!("{url}{target}?w={}", model.tag());
    let method = model.rng.pick(&["GET", "GET", "POST", "PUT", "HEAD"]);
    let method = Method::new(method).unwrap();
    let mut timeouts = FetchTimeouts::default();
    timeouts.total = Some(Duration::from_secs(20));
    let info = FetchInfo::new(method, &url).unwrap();
    let info = info.header("x-ours", "yes").unwrap();
    let mut info = info.timeouts(timeouts).unwrap();
    let mut request = Request {
        ours: url.contains("://n"),
        ..Request::default()
    };
    match model.rng.below(4) {
        0 => {
            let len = some_length(&mut model.rng);
            info = info.body(world::pattern(0, len));
        }
        1 => {
            request.streams = true;
            info = info.streamed_body(model.rng.pick(&[None, Some(3000)]));
        }
        _ => {}
    }
    if model.rng.once_in(2) {
        info = info.streamed();
    }
    if model.rng.once_in(8) {
        info = info.no_pool();
    }
    let main = model.vhosts.iter().find(|(own, _)| *own == node);
    let main = main.expect("every context has one").1;
    let begun = cx.fetch(main, info);
    model.note(format!("{node} fetches {url}: {:?}", begun.as_ref().ok()));
    if let Ok(id) = begun {
        let before = model.fetches.insert((node, id), request);
        assert!(before.is_none(), "{node} {id:?}: an id is given once");
    }
}

fn touch_fetch(model: &mut Model, node: Node, cx: &mut Cx<'_>) {
    let own = model.fetches.keys().filter(|(own, _)| *own == node);
    let own: Vec<_> = own.map(|(_, id)| *id).collect();
    if own.is_empty() {
        return;
    }
    let id = model.rng.pick(&own);
    let choice = model.rng.below(8);
    match choice {
        0 if !model.gentle => drop(cx.cancel_fetch(id)),
        1 => drop(cx.pause_fetch(id)),
        2 | 3 => drop(cx.resume_fetch(id)),
        4 | 5 => {
            let request = model.fetches.get_mut(&(node, id)).unwrap();
            if request.streams
                && cx
                    .fetch_write(id, &world::pattern(request.sent, 700))
                    .is_ok()
            {
                request.sent += 700;
            }
        }
        6 => drop(cx.fetch_finish(id)),
        _ => drop(cx.request_fetch_writable(id)),
    }
}

/// Answers hooks that have said later: at most so many.
pub(crate) fn answer_questions(model: &mut Model, node: Node, cx: &mut Cx<'_>, most: usize) {
    for _ in 0..most {
        let Some(at) = model.questions.iter().position(|(own, _)| *own == node) else {
            return;
        };
        let (_, id) = model.questions.remove(at);
        let answer = match model.rng.below(8) {
            0 => Ok(HookAnswer::deny(403)),
            1 => Ok(HookAnswer::Next),
            2 => Err(HookError::new("no idea")),
            _ => Ok(HookAnswer::allow()),
        };
        let told = cx.answer_hook(id, answer);
        model.note(format!("{node} answers {id:?}: {told:?}"));
        // What was answered is not asked any more.
        let again = cx.answer_hook(id, Ok(HookAnswer::allow()));
        assert!(again.is_err(), "{id:?} is answered twice");
    }
}

/// Decides upgrades that wait: at most so many.
pub(crate) fn decide(model: &mut Model, node: Node, cx: &mut Cx<'_>, most: usize) {
    for _ in 0..most {
        let Some(at) = model.verdicts.iter().position(|(own, _)| *own == node) else {
            return;
        };
        let (_, id) = model.verdicts.remove(at);
        let verdict = match model.rng.once_in(4) {
            true => Err(Refuse::new(403)),
            false => Ok(wsloop::Accept::new()),
        };
        let told = cx.decide(id, verdict);
        model.note(format!("{node} decides {id:?}: {told:?}"));
    }
}

/// Goes on with responses that are owed: at most so many.
pub(crate) fn respond(model: &mut Model, node: Node, cx: &mut Cx<'_>, most: usize) {
    let own = model.exchanges.keys().filter(|(own, _)| *own == node);
    let own: Vec<_> = own.map(|(_, id)| *id).collect();
    for id in own.into_iter().take(most) {
        if let Some(mut responder) = cx.exchange(id) {
            let len = some_length(&mut model.rng);
            let response = Response::new(200).body(world::pattern(0, len));
            if responder.respond(response).is_err() {
                let _ = responder.finish();
            }
        }
    }
}

/// The pool of the requests.
pub(crate) fn pool() -> PoolConfig {
    PoolConfig::new()
        .total(5)
        .per_origin(3)
        .idle(2)
        .waiting(6)
        .idle_lifetime(Duration::from_secs(3))
        .queue_timeout(Duration::from_secs(2))
}

/// The longest header of a frame.
const HEADER: usize = 14;
