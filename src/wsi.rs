//! All that a callback may do: [`Wsi`] to its own connection, [`Peer`] to others of its protocol,
//! [`Cx`] to the loop.

mod drive;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::ClientConnectInfo;
use crate::compression::Encoded;
use crate::config::VhostConfig;
use crate::conn::{Conn, Flags, Phase, Queued, Role, SendHalf};
use crate::error::{CloseKind, ConnectError, Gone, NotPending, SendError, Unsent};
use crate::handler::Responder;
use crate::hook::Attributes;
use crate::http::response::ResponseHalf;
use crate::id::{ExchangeId, RequestId, TimerId, TimerTag, VhostId, WsiId};
use crate::inner::{Command, Inner, Out, Owner, TimerKind};
use crate::net::transport::Io;
use crate::protocol::{Accept, Refuse};
use crate::timer::saturating_add;
#[cfg(feature = "deflate")]
use crate::ws::deflate::{DeflateParams, SendOptions};
use crate::ws::recv::RecvLimits;
use crate::ws::send::Fin;
use crate::ws::{Close, Message, MessageKind, Side};

/// One connection, inside one of its callbacks, with the loop behind it.
///
/// Nothing here blocks or calls back: sends are queued and leave together when the callback has
/// returned.
#[derive(Debug)]
pub struct Wsi<'a> {
    cx: Cx<'a>,
}

/// The connection that a callback is about, lent to it.
#[derive(Debug)]
pub(crate) struct Current<'a> {
    pub(crate) send: &'a mut SendHalf,
    pub(crate) io: Option<&'a mut Io>,
    /// Of the HTTP exchange that the callback is about.
    pub(crate) response: Option<(ExchangeId, &'a mut ResponseHalf)>,
}

impl<'a> Wsi<'a> {
    #[inline]
    pub(crate) fn new(
        inner: &'a mut Inner,
        send: &'a mut SendHalf,
        io: Option<&'a mut Io>,
    ) -> Self {
        let protocol = send.protocol;
        Self {
            cx: Cx {
                current: Some(Current {
                    send,
                    io,
                    response: None,
                }),
                inner,
                // It is a protocol's callback that it is lent to.
                owner: Owner::Protocol(protocol),
            },
        }
    }

    /// The connection's id, to keep.
    pub const fn id(&self) -> WsiId {
        self.current().send.id
    }

    /// The loop: other connections, timers, client connections, vhosts.
    pub const fn cx(&mut self) -> &mut Cx<'a> {
        &mut self.cx
    }

    /// The time of this turn of the loop.
    pub const fn now(&self) -> Instant {
        self.cx.inner.out.now
    }

    /// Which side of the connection this program is.
    pub fn side(&self) -> Side {
        self.send_half().side
    }

    /// The vhost that the connection belongs to.
    pub fn vhost(&self) -> VhostId {
        self.send_half().vhost()
    }

    /// The address of the other end.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.io()?.peer())
    }

    /// The address of this end.
    ///
    /// # Errors
    ///
    /// The system's, and `NotConnected` after the transport is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.io() {
            Some(io) => io.stream.local_addr(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether the transport is TLS: what it is, not what the port or the URL said.
    pub fn is_tls(&self) -> bool {
        self.io().is_some_and(|io| io.secure.is_some())
    }

    /// What the TLS handshake agreed on; `None` without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<crate::tls::TlsInfo> {
        self.io()?.secure.as_ref()?.info()
    }

    /// Who the other end is, by the certificate that it has shown; `None` if it has shown none.
    #[cfg(feature = "tls")]
    pub fn peer_identity(&self) -> Option<crate::tls::PeerIdentity> {
        self.io()?.secure.as_ref()?.peer_identity()
    }

    /// The subprotocol that both sides agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.send_half().rare.as_ref()?.subprotocol.as_deref()
    }

    /// What the hook that allowed the connection said about it; empty on a client.
    pub fn attributes(&self) -> &Attributes {
        self.send_half().attributes()
    }

    /// What was agreed on about compression; `None` if messages go as they are.
    #[cfg(feature = "deflate")]
    pub fn deflate(&self) -> Option<DeflateParams> {
        self.send_half().deflate()
    }

    /// The round trip time that the latest answered ping took.
    pub fn round_trip(&self) -> Option<Duration> {
        self.send_half().rare.as_ref()?.rtt
    }

    /// Queues a text message.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing of a refused message is sent.
    pub fn send_text(&mut self, text: &str) -> Result<Queued, SendError> {
        self.send(Message::Text(text))
    }

    /// Queues a binary message.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing of a refused message is sent.
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<Queued, SendError> {
        self.send(Message::Binary(bytes))
    }

    /// Queues a message.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing of a refused message is sent.
    #[inline(always)]
    pub fn send(&mut self, message: Message<'_>) -> Result<Queued, SendError> {
        let (send, out) = self.parts();
        send.send_message(out, message)
    }

    /// Queues a message, compressed or not as the options say.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing of a refused message is sent.
    #[cfg(feature = "deflate")]
    pub fn send_with(
        &mut self,
        message: Message<'_>,
        options: SendOptions,
    ) -> Result<Queued, SendError> {
        let (send, out) = self.parts();
        send.send_message_with(out, message, options)
    }

    /// Queues an owned binary message; a server sends a large one without copying it.
    ///
    /// # Errors
    ///
    /// As [`Wsi::send`], with the message back.
    pub fn send_bytes(&mut self, bytes: Bytes) -> Result<Queued, Unsent<Bytes>> {
        let (send, out) = self.parts();
        let sent = send.send_owned(out, MessageKind::Binary, bytes.clone());
        sent.map_err(|error| Unsent::new(error, bytes))
    }

    /// Queues an owned text message; a server sends a large one without copying it.
    ///
    /// # Errors
    ///
    /// As [`Wsi::send`], with the message back.
    pub fn send_string(&mut self, text: String) -> Result<Queued, Unsent<String>> {
        let (send, out) = self.parts();
        if text.len() < LARGE || send.side == Side::Client {
            let sent = send.send_message(out, Message::Text(&text));
            return sent.map_err(|error| Unsent::new(error, text));
        }
        if let Err(error) = send.admit(text.len()) {
            return Err(Unsent::new(error, text));
        }
        let sent = send.send_owned(out, MessageKind::Text, Bytes::from(text));
        sent.map_err(|error| Unsent::new(error, String::new()))
    }

    /// Queues one fragment of a message (RFC 6455 section 5.4). The first call begins the
    /// message; until the one with [`Fin::Last`] no other message can be sent. Text may be cut
    /// anywhere, but the whole must be UTF-8, or the peer will fail the connection.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; after an error the message is as far as it was.
    pub fn send_fragment(
        &mut self,
        kind: MessageKind,
        fragment: &[u8],
        fin: Fin,
    ) -> Result<Queued, SendError> {
        let (send, out) = self.parts();
        send.send_fragment(out, kind, fragment, fin)
    }

    /// Queues a ping with up to 125 bytes; the answer comes to
    /// [`on_pong`](crate::Protocol::on_pong).
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send_ping(&mut self, payload: &[u8]) -> Result<Queued, SendError> {
        let (send, out) = self.parts();
        send.send_ping(out, payload)
    }

    /// Bytes that wait to be sent, frame headers included.
    pub fn buffered_out(&self) -> usize {
        self.send_half().tx.len()
    }

    /// Asks for one [`on_writable`](crate::Protocol::on_writable), which comes when at most
    /// [`Limits::output_low_water`](crate::Limits::output_low_water) bytes wait; at once, after
    /// this callback, if that is so now.
    pub fn request_writable(&mut self) {
        let (send, out) = self.parts();
        request_writable(send, out);
    }

    /// Takes nothing more from the peer until [`Wsi::resume_reading`]: no message is delivered,
    /// no ping answered, and once the system's buffers are full the peer cannot send.
    ///
    /// A peer that is gone (a reset, a write that failed) is told of at once. If it has said
    /// something before that is not delivered yet, that comes first: it waits for
    /// [`Wsi::resume_reading`], at most for [`Timeouts::write`](crate::Timeouts::write), all
    /// pauses together. A peer that has only ended its own side is not gone; its end comes in its
    /// turn.
    pub fn pause_reading(&mut self) {
        self.parts().0.flags |= Flags::PAUSED;
    }

    /// Undoes [`Wsi::pause_reading`].
    pub fn resume_reading(&mut self) {
        let (send, out) = self.parts();
        resume_reading(send, out);
    }

    /// Begins the closing handshake (RFC 6455 section 7.1.2), behind what is queued. Does nothing
    /// if the connection is closing already.
    pub fn close(&mut self, close: Close) {
        let (send, out) = self.parts();
        send.close(out, &close, CloseKind::Application);
    }

    /// Ends the connection after this callback without a closing handshake; what is queued is
    /// dropped and counted in [`CloseCause::undelivered`](crate::CloseCause::undelivered).
    pub fn abort(&mut self) {
        let (send, out) = self.parts();
        send.abort(out, CloseKind::Aborted);
    }

    /// Arms a timer of this connection; [`on_timer`](crate::Protocol::on_timer) gets the tag. It
    /// is cancelled when the connection ends. `None` for a time that never comes
    /// (`Duration::MAX`).
    pub fn set_timer(&mut self, after: Duration, tag: TimerTag) -> Option<TimerId> {
        let (send, out) = self.parts();
        let id = send.id;
        let at = saturating_add(out.now, after)?;
        let key = out.timers.arm(at, TimerKind::Wsi(id, tag));
        send.keep_timer(&out.timers, key);
        Some(TimerId(key))
    }

    /// Bytes of memory that the library holds for this connection, beside the session.
    pub fn memory(&self) -> usize {
        let send = self.send_half();
        let compression = send.compression_memory() + send.window_memory();
        size_of::<Conn>() + send.tx.memory() + compression
    }

    #[inline]
    pub(crate) fn send_half(&self) -> &SendHalf {
        self.current().send
    }

    pub(crate) fn recv_limits(&self) -> RecvLimits {
        self.send_half().settings.recv
    }

    fn io(&self) -> Option<&Io> {
        self.current().io.as_deref()
    }

    #[inline]
    const fn current(&self) -> &Current<'a> {
        self.cx.current.as_ref().expect(HAS_CURRENT)
    }

    #[inline(always)]
    fn parts(&mut self) -> (&mut SendHalf, &mut Out) {
        let Cx { current, inner, .. } = &mut self.cx;
        let current = current.as_mut().expect(HAS_CURRENT);
        (&mut *current.send, &mut inner.out)
    }
}

/// `Wsi::new` is the only constructor, and nothing takes the connection out again.
const HAS_CURRENT: &str = "a Wsi is made with its connection";
/// From this size on an owned text is worth sending by reference.
const LARGE: usize = 4096;

/// The loop, seen from a callback.
#[derive(Debug)]
pub struct Cx<'a> {
    pub(crate) current: Option<Current<'a>>,
    pub(crate) inner: &'a mut Inner,
    /// Whose callback it is lent to.
    pub(crate) owner: Owner,
}

impl<'a> Cx<'a> {
    /// A view that no connection is behind.
    pub(crate) const fn new(inner: &'a mut Inner, owner: Owner) -> Self {
        Self {
            current: None,
            inner,
            owner,
        }
    }

    /// The time of this turn of the loop.
    pub const fn now(&self) -> Instant {
        self.inner.out.now
    }

    /// Another connection of the same protocol, or the current one; `None` if it is not
    /// established (any more).
    pub fn peer(&mut self, id: WsiId) -> Option<Peer<'_>> {
        let Self {
            current,
            inner,
            owner: Owner::Protocol(protocol),
        } = self
        else {
            return None;
        };
        let Inner { conns, out, .. } = &mut **inner;
        match current {
            Some(current) if current.send.id == id => Some(Peer {
                send: &mut *current.send,
                out,
            }),
            _ => {
                let conn = conns.get_mut(id.index, id.generation)?;
                let reachable = conn.send.protocol == *protocol && conn.is_established();
                reachable.then_some(Peer {
                    send: &mut conn.send,
                    out,
                })
            }
        }
    }

    /// Every established connection of this protocol, the current one included.
    pub fn for_each_peer(&mut self, mut f: impl FnMut(Peer<'_>)) {
        let Self {
            current,
            inner,
            owner: Owner::Protocol(protocol),
        } = self
        else {
            return;
        };
        let Inner { conns, out, .. } = &mut **inner;
        if let Some(current) = current {
            if current.send.phase != Phase::Opening {
                f(Peer {
                    send: &mut *current.send,
                    out,
                });
            }
        }
        for conn in conns.values_mut() {
            if conn.send.protocol == *protocol && conn.is_established() {
                f(Peer {
                    send: &mut conn.send,
                    out,
                });
            }
        }
    }

    /// Queues one message for every established connection of this protocol for which `wanted`
    /// says yes. The frame is encoded once, and where compression was agreed on compressed once
    /// for all who compress alike without context takeover; those with it get it uncompressed. A
    /// large frame is not copied either.
    pub fn broadcast(
        &mut self,
        message: Message<'_>,
        mut wanted: impl FnMut(WsiId) -> bool,
    ) -> Broadcast {
        let mut frames = Encoded::new(message);
        let mut outcome = Broadcast::default();
        self.for_each_peer(|mut peer| {
            if !wanted(peer.id()) {
                return;
            }
            let sent = match peer.send.side {
                // A client's frames are masked, each with a key of its own.
                Side::Client => peer.send(message),
                Side::Server => {
                    let frame = frames.for_peer(peer.send, peer.out);
                    peer.send.send_encoded(peer.out, frame, message.len())
                }
            };
            match sent {
                Ok(_) => outcome.queued += 1,
                Err(SendError::Full { .. }) => outcome.full += 1,
                Err(SendError::TooLarge { .. }) => outcome.too_large += 1,
                Err(_) => outcome.closing += 1,
            }
        });
        outcome
    }

    /// Begins the closing handshake of any connection of the context, or ends it if it is not
    /// established yet. Does nothing to one that is closing already.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the connection has ended.
    pub fn close(&mut self, id: WsiId, close: Close) -> Result<(), Gone> {
        let (send, out) = self.any(id).ok_or(Gone)?;
        send.close(out, &close, CloseKind::Application);
        Ok(())
    }

    /// Ends any connection of the context, or a client's attempt, without a closing handshake.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the connection has ended.
    pub fn abort(&mut self, id: WsiId) -> Result<(), Gone> {
        let (send, out) = self.any(id).ok_or(Gone)?;
        send.abort(out, CloseKind::Aborted);
        Ok(())
    }

    /// Begins a client connection on a vhost. Nothing happens inside this call but checks; the
    /// outcome comes to the protocol that the description names (by default the vhost's default
    /// one), as exactly one of `on_established` and `on_connect_error`.
    ///
    /// # Errors
    ///
    /// If nothing can be dialled at all: unknown vhost or protocol, no client TLS or a name that TLS
    /// cannot use, too many connections, shutdown. No callback follows then.
    pub fn client_connect(
        &mut self,
        vhost: VhostId,
        info: ClientConnectInfo,
    ) -> Result<WsiId, ConnectError> {
        self.inner.client_connect(vhost, info)
    }

    /// Decides an upgrade request that was deferred with [`Accept::later`]. Another `later` waits
    /// again, with a new deadline.
    ///
    /// # Errors
    ///
    /// [`NotPending`] if nobody waits for this verdict: it was decided, timed out, or its
    /// connection has ended. Nothing is done then.
    pub fn decide(
        &mut self,
        id: RequestId,
        verdict: Result<Accept, Refuse>,
    ) -> Result<(), NotPending> {
        let Inner { conns, out, .. } = &mut *self.inner;
        let conn = conns.get_mut(id.wsi.index, id.wsi.generation);
        let conn = conn.ok_or(NotPending)?;
        match &mut conn.role {
            Role::Http(http) => http.decide(verdict)?,
            Role::Client(_) | Role::HttpClient(_) | Role::Linger | Role::Ws(_) => {
                return Err(NotPending);
            }
        }
        conn.send.mark(out);
        Ok(())
    }

    /// The response of an HTTP exchange on a server, of whatever handler; `None` when it is over.
    pub fn exchange(&mut self, id: ExchangeId) -> Option<Responder<'_>> {
        let Self { current, inner, .. } = self;
        let Inner { conns, out, .. } = &mut **inner;
        match current {
            Some(Current {
                send,
                response: Some((own, response)),
                ..
            }) if *own == id => Some(Responder {
                send,
                out,
                response,
            }),
            _ => {
                let conn = conns.get_mut(id.wsi.index, id.wsi.generation)?;
                let Role::Http(http) = &mut conn.role else {
                    return None;
                };
                let response = http.response_of(id)?;
                Some(Responder {
                    send: &mut conn.send,
                    out,
                    response,
                })
            }
        }
    }

    /// Arms a timer that belongs to this protocol, HTTP handler or hook, and no connection;
    /// [`on_free_timer`](crate::Protocol::on_free_timer), or the
    /// [`on_timer`](crate::Hook::on_timer) of a hook, gets the tag. `None` for a time that
    /// never comes (`Duration::MAX`).
    pub fn set_timer(&mut self, after: Duration, tag: TimerTag) -> Option<TimerId> {
        let kind = TimerKind::Free(self.owner, tag);
        self.inner.arm(after, kind).map(TimerId)
    }

    /// Cancels a timer; `false` if it has fired or was cancelled.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.inner.out.timers.cancel(timer.0)
    }

    /// Makes a vhost when no callback runs. If that fails,
    /// [`ContextObserver::on_vhost_error`](crate::ContextObserver::on_vhost_error) says why, and
    /// the id is stale. `None` if the context cannot hold more vhosts.
    pub fn create_vhost(&mut self, config: VhostConfig) -> Option<VhostId> {
        let id = self.inner.announce_vhost()?;
        let command = Command::CreateVhost(id, Box::new(config));
        self.inner.commands.push_back(command);
        Some(id)
    }

    /// Destroys a vhost when no callback runs: its listeners close, its connections get a Close
    /// frame with 1001, and it is gone when the last of them has ended.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn destroy_vhost(&mut self, id: VhostId) -> Result<(), Gone> {
        self.inner.vhost(id).ok_or(Gone)?;
        self.inner.commands.push_back(Command::DestroyVhost(id));
        Ok(())
    }

    /// Begins a graceful shutdown when no callback runs; see
    /// [`Context::shutdown`](crate::Context::shutdown).
    pub fn shutdown(&mut self, grace: Duration) {
        self.inner.commands.push_back(Command::Shutdown(grace));
    }

    /// Connections of the context, in whatever state.
    pub fn connections(&self) -> usize {
        self.inner.conns.len()
    }

    fn any(&mut self, id: WsiId) -> Option<(&mut SendHalf, &mut Out)> {
        let Self { current, inner, .. } = self;
        let Inner { conns, out, .. } = &mut **inner;
        match current {
            Some(current) if current.send.id == id => Some((&mut *current.send, out)),
            _ => {
                let conn = conns.get_mut(id.index, id.generation)?;
                (!conn.is_told()).then_some((&mut conn.send, out))
            }
        }
    }
}

/// What a broadcast met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcast {
    /// Connections that the message was queued for.
    pub queued: usize,
    /// Connections whose output queue was full; they did not get it.
    pub full: usize,
    /// Connections that cannot get it: closing, or inside a fragmented message.
    pub closing: usize,
    /// Connections whose vhost does not allow messages of that length
    /// ([`Limits::message_bytes`](crate::Limits::message_bytes)).
    pub too_large: usize,
}

/// Another connection of the same protocol, reached from a callback.
#[derive(Debug)]
pub struct Peer<'a> {
    send: &'a mut SendHalf,
    out: &'a mut Out,
}

impl Peer<'_> {
    /// Its id.
    pub const fn id(&self) -> WsiId {
        self.send.id
    }

    /// Which side of that connection this program is.
    pub const fn side(&self) -> Side {
        self.send.side
    }

    /// Queues a text message; see [`Wsi::send_text`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send_text(&mut self, text: &str) -> Result<Queued, SendError> {
        self.send(Message::Text(text))
    }

    /// Queues a binary message; see [`Wsi::send_binary`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<Queued, SendError> {
        self.send(Message::Binary(bytes))
    }

    /// Queues a message; see [`Wsi::send`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send(&mut self, message: Message<'_>) -> Result<Queued, SendError> {
        self.send.send_message(self.out, message)
    }

    /// Queues a ping; see [`Wsi::send_ping`].
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send_ping(&mut self, payload: &[u8]) -> Result<Queued, SendError> {
        self.send.send_ping(self.out, payload)
    }

    /// Bytes that wait to be sent.
    pub fn buffered_out(&self) -> usize {
        self.send.tx.len()
    }

    /// Asks for one `on_writable` of that connection; see [`Wsi::request_writable`].
    pub fn request_writable(&mut self) {
        request_writable(self.send, self.out);
    }

    /// See [`Wsi::pause_reading`].
    pub fn pause_reading(&mut self) {
        self.send.flags |= Flags::PAUSED;
    }

    /// See [`Wsi::resume_reading`].
    pub fn resume_reading(&mut self) {
        resume_reading(self.send, self.out);
    }

    /// Begins its closing handshake; see [`Wsi::close`].
    pub fn close(&mut self, close: Close) {
        self.send.close(self.out, &close, CloseKind::Application);
    }

    /// Ends it; see [`Wsi::abort`].
    pub fn abort(&mut self) {
        self.send.abort(self.out, CloseKind::Aborted);
    }
}

fn request_writable(send: &mut SendHalf, out: &mut Out) {
    if send.phase == Phase::Open {
        send.flags |= Flags::WANT_WRITABLE;
        send.mark(out);
    }
}

fn resume_reading(send: &mut SendHalf, out: &mut Out) {
    if send.flags.contains(Flags::PAUSED) {
        send.flags -= Flags::PAUSED;
        // The silence was ours.
        send.last_received = out.moment;
    }
    send.mark(out);
}
