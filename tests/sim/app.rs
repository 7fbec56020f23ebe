//! A WebSocket application that may do anything, and checks that it is told what it was promised.

use std::time::Duration;

use wsloop::{
    Accept, Chunk, Close, CloseCause, CloseFrame, ConnectError, Cx, Established, Handshake,
    Message, Protocol, Refuse, Request, TimerTag, Wsi, WsiId,
};

use super::judge::{Trust, check_admitted};
use super::model::{Digest, Life, Node, Shared, Victim};
use super::tricks::{self, Fragment, panic_now, some_close, wants_panic};
use super::world::strange;

pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) shared: Shared,
    /// How far its vhost goes by what a webhook says.
    pub(crate) trust: Option<Trust>,
}

/// What belongs to a connection.
pub(crate) struct Session {
    id: WsiId,
    fragment: Fragment,
    /// The message of which chunks have come.
    chunks: Option<Digest>,
}

impl App {
    /// Something happened to an open connection: checks that it may, then does this or that.
    fn react(&self, wsi: &mut Wsi<'_>, session: &mut Session, what: &str) -> Result<(), Close> {
        let (node, id) = (self.node, wsi.id());
        assert_eq!(session.id, id, "another's session");
        let mut model = self.shared.lock();
        model.open(node, id);
        model.note(format!("{node} {id} {what}"));
        if !model.spend() {
            return Ok(());
        }
        if wants_panic(&mut model) {
            panic_now(model, Victim::Conn(node, id));
        }
        let closes = model.harms() && model.rng.once_in(25);
        drop(model);
        tricks::to_itself(&self.shared, node, wsi, &mut session.fragment);
        if closes {
            let mut model = self.shared.lock();
            model.open(node, id).closing = true;
            return Err(some_close(&mut model));
        }
        Ok(())
    }

    /// Something happened that is about no open connection.
    fn act(&self, cx: &mut Cx<'_>, what: &str) {
        let mut model = self.shared.lock();
        model.note(format!("{} {what}", self.node));
        if model.spend() {
            if wants_panic(&mut model) {
                panic_now(model, Victim::Nobody);
            }
            drop(model);
            tricks::from_anywhere(&self.shared, self.node, cx);
        }
    }
}

impl Protocol for App {
    type Session = Session;

    fn filter_upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        let node = self.node;
        self.act(cx, &format!("filters {:?}", request.id()));
        let mut model = self.shared.lock();
        let choices = if model.gentle { 6 } else { 12 };
        match model.rng.below(choices) {
            0 => Ok(Accept::new().no_deflate()),
            6 => Err(Refuse::new(403)),
            7 | 8 => {
                model.verdicts.push((node, request.id()));
                Ok(Accept::later_within(Duration::from_secs(2)))
            }
            _ => Ok(Accept::new()),
        }
    }

    fn on_established(
        &mut self,
        wsi: &mut Wsi<'_>,
        how: &Established<'_>,
    ) -> Result<Session, Close> {
        let (node, id) = (self.node, wsi.id());
        let mut model = self.shared.lock();
        let dialled = matches!(how.head, Handshake::Response(_));
        let link = (wsi.local_addr(), wsi.peer_addr());
        let (Ok(local), Some(peer)) = link else {
            panic!("{node} {id} has no transport: {link:?}");
        };
        model.note(format!("{node} {id} established, dialled {dialled}"));
        if !model.gentle && model.rng.once_in(20) {
            // Who dialled is told as of a failed attempt, who accepted is not told again.
            return Err(some_close(&mut model));
        }
        model.opened(node, id, (local, peer), dialled);
        if let Handshake::Request(head) = &how.head {
            check_admitted(&model, self.trust, head.query(), how.attributes);
        }
        if peer == strange() {
            model.flow((peer, local)).wild = true;
        }
        drop(model);
        let mut session = Session {
            id,
            fragment: Fragment::default(),
            chunks: None,
        };
        for _ in 0..2 {
            if self.shared.lock().spend() {
                tricks::to_itself(&self.shared, node, wsi, &mut session.fragment);
            }
        }
        Ok(session)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Session,
        message: Message<'_>,
    ) -> Result<(), Close> {
        let digest = Digest::of(message);
        let (node, id) = (self.node, wsi.id());
        let mut model = self.shared.lock();
        assert!(digest.len <= model.longest, "{digest:?}");
        model.received(node, id, digest);
        if model.budget > 0 && model.rng.once_in(3) {
            model.budget -= 1;
            tricks::send_back(&mut model, node, wsi, message, digest);
        }
        drop(model);
        self.react(
            wsi,
            session,
            &format!("message {} {:?}", digest.len, digest.kind),
        )
    }

    fn on_chunk(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Session,
        chunk: Chunk<'_>,
    ) -> Result<(), Close> {
        let (node, id) = (self.node, wsi.id());
        assert_eq!(session.chunks.is_none(), chunk.first, "{node} {id}");
        let mut digest = session.chunks.unwrap_or_else(|| Digest::new(chunk.kind));
        assert_eq!(digest.kind, chunk.kind, "{node} {id}");
        digest.add(chunk.data);
        assert!(!self.shared.lock().open(node, id).closing, "{node} {id}");
        session.chunks = Some(digest);
        if chunk.last {
            session.chunks = None;
            self.shared.lock().received(node, id, digest);
        }
        self.react(wsi, session, &format!("chunk {}", chunk.data.len()))
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, session: &mut Session) -> Result<(), Close> {
        let (node, id) = (self.node, wsi.id());
        let mut model = self.shared.lock();
        let conn = model.open(node, id);
        assert!(conn.writable, "{node} {id}: nobody asked for it");
        conn.writable = false;
        drop(model);
        self.react(wsi, session, "writable")
    }

    fn on_pong(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Session,
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<(), Close> {
        self.react(wsi, session, "pong")
    }

    fn on_peer_close(&mut self, wsi: &mut Wsi<'_>, _: &mut Session, _: Option<CloseFrame<'_>>) {
        let (node, id) = (self.node, wsi.id());
        let mut model = self.shared.lock();
        model.note(format!("{node} {id} peer's close"));
        model.peer_closed(node, id);
        assert!(wsi.send_text("too late").is_err(), "after the peer's close");
        if wants_panic(&mut model) {
            panic_now(model, Victim::Conn(node, id));
        }
    }

    fn on_timer(
        &mut self,
        wsi: &mut Wsi<'_>,
        session: &mut Session,
        tag: TimerTag,
    ) -> Result<(), Close> {
        let (id, now) = (wsi.id(), wsi.now());
        self.shared
            .lock()
            .timer_fired(self.node, tag.0, Some(id), now);
        self.react(wsi, session, "timer")
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let now = cx.now();
        self.shared.lock().timer_fired(self.node, tag.0, None, now);
        self.act(cx, "free timer");
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, id: WsiId, session: Session, cause: &CloseCause) {
        let node = self.node;
        assert_eq!(session.id, id, "another's session");
        assert!(!cause.is_clean() || cause.undelivered() == 0, "{cause:?}");
        assert!(cx.peer(id).is_none(), "{node} {id} is not there any more");
        let mut model = self.shared.lock();
        model.note(format!("{node} {id} closed, {:?}: {cause}", cause.side()));
        model.ended(node, id, Life::Open);
        if let Some(next) = cause.reconnect() {
            model.attempt(node, next);
        }
        drop(model);
        self.act(cx, "goes on");
    }

    fn on_connect_error(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError) {
        let node = self.node;
        let mut model = self.shared.lock();
        model.note(format!("{node} {id} not connected: {error}"));
        model.ended(node, id, Life::Attempt);
        drop(model);
        self.act(cx, "goes on");
    }

    fn on_retry(&mut self, cx: &mut Cx<'_>, id: WsiId, error: &ConnectError, delay: Duration) {
        let node = self.node;
        let mut model = self.shared.lock();
        let conn = model.conns.get(&(node, id)).map(|conn| conn.life);
        assert_eq!(conn, Some(Life::Attempt), "{node} {id}");
        model.note(format!("{node} {id} again in {delay:?}: {error}"));
        if model.rng.once_in(6) {
            assert!(cx.abort(id).is_ok());
        }
    }

    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        self.act(cx, "wakes");
    }
}
