//! permessage-deflate between the wire rooms and the loop: what is agreed on, what goes out
//! compressed, who waits for an inflater.

use std::sync::Arc;

use bytes::Bytes;

use crate::conn::{Conn, Queued, Role, SendHalf};
use crate::context::Context;
use crate::dial::ClientRole;
use crate::error::SendError;
use crate::http::head::{RequestHead, ResponseHead};
use crate::inner::Out;
use crate::lift::Lift;
use crate::protocol::{Accept, DeflateChoice};
use crate::ws::deflate::compress::{Compressing, Make};
use crate::ws::deflate::{
    DeflateConfig, DeflateParams, SendOptions, Takeover, answer_offers, offer,
};
use crate::ws::handshake::{ResponseError, check_response_with};
use crate::ws::recv::Recv;
use crate::ws::send::{Coding, Fin, append_frame, opcode};
use crate::ws::{Message, MessageKind};

/// What a connection has agreed on.
pub(crate) type Agreed = Option<Box<Compressing>>;

/// How many connections keep windows between their messages.
#[derive(Debug)]
pub(crate) struct Takeovers {
    /// Each of them holds one of these.
    lease: Arc<()>,
    cap: usize,
}

impl Takeovers {
    pub(crate) fn new(cap: usize) -> Self {
        let lease = Arc::new(());
        Self { lease, cap }
    }

    fn is_full(&self) -> bool {
        Arc::strong_count(&self.lease) > self.cap
    }

    /// Counts the connection if it is one of them.
    fn agreed(&self, mut agreed: Compressing) -> Box<Compressing> {
        let params = &agreed.params;
        if !(params.server_no_context_takeover && params.client_no_context_takeover) {
            agreed.lease = Some(Arc::clone(&self.lease));
        }
        Box::new(agreed)
    }
}

impl SendHalf {
    /// Whether compression was not agreed on: what is sent goes as it is, in both directions.
    #[inline]
    pub(crate) const fn sends_plain(&self) -> bool {
        self.compression.is_none()
    }

    /// What was agreed on.
    pub(crate) fn deflate(&self) -> Option<DeflateParams> {
        Some(self.compression.as_ref()?.params)
    }

    /// The receiving half that fits what was agreed on.
    pub(crate) fn receiver(&self) -> Recv {
        match &self.compression {
            Some(agreed) => Recv::with_deflate(self.side, &agreed.params, &agreed.config),
            None => Recv::default(),
        }
    }

    pub(crate) fn compression_memory(&self) -> usize {
        let agreed = self.compression.as_ref();
        agreed.map_or(0, |agreed| agreed.memory())
    }

    /// What the receiving half owns, as far as the sending half knows: callbacks see only that.
    pub(crate) fn window_memory(&self) -> usize {
        let agreed = self.compression.as_ref();
        agreed.map_or(0, |agreed| agreed.received)
    }

    /// The receiving half has done something.
    pub(crate) fn note_window(&mut self, recv: &Recv) {
        if let Some(agreed) = &mut self.compression {
            agreed.received = recv.inflating_memory();
        }
    }

    pub(crate) fn send_message_with(
        &mut self,
        out: &mut Out,
        message: Message<'_>,
        options: SendOptions,
    ) -> Result<Queued, SendError> {
        self.send_payload_with(out, message.kind(), message.as_bytes(), options)
    }

    pub(crate) fn send_payload_with(
        &mut self,
        out: &mut Out,
        kind: MessageKind,
        payload: &[u8],
        options: SendOptions,
    ) -> Result<Queued, SendError> {
        self.admit(payload.len())?;
        if !self.push_compressed(out, kind, payload, options) {
            let (opcode, coding) = (opcode(kind), Coding::Plain);
            self.push_frame(out, Fin::Last, opcode, coding, payload);
        }
        Ok(self.queued())
    }

    /// Queues a message in its compressed form, if it is to have one. Whether it did.
    pub(crate) fn push_compressed(
        &mut self,
        out: &mut Out,
        kind: MessageKind,
        message: &[u8],
        options: SendOptions,
    ) -> bool {
        let Some(agreed) = &mut self.compression else {
            return false;
        };
        let Some(payload) = agreed.compress(&mut out.compressors, message, options) else {
            return false;
        };
        let (opcode, coding) = (opcode(kind), Coding::Compressed);
        self.push_frame(out, Fin::Last, opcode, coding, payload.as_slice());
        out.compressors.put_back(payload);
        true
    }

    /// Queues a fragment in its compressed form, if its message has one. Whether it did.
    pub(crate) fn push_compressed_fragment(
        &mut self,
        out: &mut Out,
        kind: Option<MessageKind>,
        fragment: &[u8],
        fin: Fin,
    ) -> bool {
        let Some(agreed) = &mut self.compression else {
            return false;
        };
        let (first, last) = (kind.is_some(), fin == Fin::Last);
        let compressed = agreed.compress_fragment(&mut out.compressors, fragment, first, last);
        let Some(payload) = compressed else {
            return false;
        };
        // RFC 7692 section 6.1: the bit is on the first fragment only.
        let (opcode, coding) = match kind {
            Some(kind) => (opcode(kind), Coding::Compressed),
            None => (crate::ws::Opcode::Continuation, Coding::Plain),
        };
        self.push_frame(out, fin, opcode, coding, payload.as_slice());
        out.compressors.put_back(payload);
        true
    }
}

/// The frames of a broadcast: one for each way in which a message can be encoded.
#[derive(Debug)]
pub(crate) struct Encoded<'m> {
    message: Message<'m>,
    plain: Option<Bytes>,
    /// `None` where compressing saves nothing.
    compressed: Vec<(Make, Option<Bytes>)>,
}

impl<'m> Encoded<'m> {
    pub(crate) const fn new(message: Message<'m>) -> Self {
        Self {
            message,
            plain: None,
            compressed: Vec::new(),
        }
    }

    /// The frame for that peer, a server's connection.
    #[inline]
    pub(crate) fn for_peer(&mut self, peer: &SendHalf, out: &mut Out) -> &Bytes {
        if peer.sends_plain() {
            return plain(self.message, &mut self.plain);
        }
        self.for_agreed(peer, out)
    }

    /// The same for one that may get it compressed.
    #[inline(never)]
    fn for_agreed(&mut self, peer: &SendHalf, out: &mut Out) -> &Bytes {
        let agreed = peer.compression.as_ref();
        let make = agreed.and_then(|agreed| agreed.common_make(self.message.len()));
        let message = self.message;
        if let Some(make) = make {
            let known = self.compressed.iter().position(|(other, _)| *other == make);
            let at = known.unwrap_or_else(|| {
                self.compressed.push((make, encode(message, make, out)));
                self.compressed.len() - 1
            });
            if let Some((_, Some(frame))) = self.compressed.get(at) {
                return frame;
            }
        }
        plain(message, &mut self.plain)
    }
}

#[inline]
fn plain<'f>(message: Message<'_>, known: &'f mut Option<Bytes>) -> &'f Bytes {
    known.get_or_insert_with(|| frame(message.kind(), Coding::Plain, message.as_bytes()))
}

fn encode(message: Message<'_>, make: Make, out: &mut Out) -> Option<Bytes> {
    let pool = &mut out.compressors;
    let payload = pool.compress_alone(make, message.as_bytes())?;
    let frame = frame(message.kind(), Coding::Compressed, payload.as_slice());
    pool.put_back(payload);
    Some(frame)
}

fn frame(kind: MessageKind, coding: Coding, payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    append_frame(&mut frame, Fin::Last, opcode(kind), coding, None, payload);
    Bytes::from(frame)
}

impl ClientRole {
    /// What is offered: the client's own wish, else that of its vhost.
    fn deflate<'a>(&'a self, send: &'a SendHalf) -> Option<&'a DeflateConfig> {
        let vhosts = send.settings.deflate.as_ref();
        self.info.deflate_choice().map_or(vhosts, Option::as_ref)
    }

    /// The value of `Sec-WebSocket-Extensions` in the request.
    pub(crate) fn offered_extensions(&self, send: &SendHalf) -> Option<String> {
        self.deflate(send).map(offer)
    }
}

impl Lift<'_> {
    /// A server's answer to what the client offers: the value of `Sec-WebSocket-Extensions`.
    pub(crate) fn agree_on_extensions(
        &mut self,
        head: &RequestHead<'_>,
        accept: &Accept,
    ) -> Option<String> {
        if accept.deflate == DeflateChoice::Declined {
            return None;
        }
        let send = &mut self.conn.send;
        let mut config = send.settings.deflate?;
        let takeovers = &self.parts.takeovers;
        if takeovers.is_full() {
            config = config.context_takeover(Takeover::None);
        }
        let (params, value) = answer_offers(head.fields().all(EXTENSIONS), &config)?;
        send.compression = Some(takeovers.agreed(Compressing::new(send.side, params, config)));
        Some(value)
    }

    /// A client's judgement of the response: the subprotocol, if there is one.
    pub(crate) fn judge_response<'h>(
        &mut self,
        head: &ResponseHead<'h>,
        key: &[u8; 24],
    ) -> Result<Option<&'h str>, ResponseError> {
        let Conn { role, send, .. } = &mut *self.conn;
        let Role::Client(client) = role else {
            return Err(ResponseError::Upgrade);
        };
        let config = client.deflate(send).copied();
        let offered = client.info.offered_subprotocols();
        let welcome = check_response_with(head, key, offered, config.as_ref())?;
        send.compression = match (welcome.deflate, config) {
            (Some(params), Some(config)) => {
                let agreed = Compressing::new(send.side, params, config);
                Some(self.parts.takeovers.agreed(agreed))
            }
            _ => None,
        };
        Ok(welcome.subprotocol)
    }

    /// A visit begins: so much may be inflated in it.
    pub(crate) fn allow_inflating(&mut self) {
        self.parts.pool.inflaters.allow(self.parts.turn_budget);
    }
}

/// From how many on those who wait for an inflater are looked through for those who have gone.
const MANY_WAITING: usize = 64;

impl Context {
    /// Lends inflaters that were given back to those who wait for one, in their order.
    pub(crate) fn lend_inflaters(&mut self) {
        let inflaters = &mut self.parts.pool.inflaters;
        let conns = &self.inner.conns;
        if inflaters.queue.len() > 2 * conns.len() + MANY_WAITING {
            // Most of them have gone: each connection waits once.
            let is_there = |id: &crate::id::WsiId| conns.get(id.index, id.generation).is_some();
            inflaters.queue.retain(is_there);
        }
        while inflaters.has_free() {
            let Some(id) = inflaters.queue.pop_front() else {
                return;
            };
            let Some(conn) = self.inner.conns.get_mut(id.index, id.generation) else {
                continue;
            };
            if let Role::Ws(ws) = &mut conn.role {
                if ws.recv.is_waiting() {
                    ws.recv.grant(inflaters.lend());
                    // The silence was ours.
                    conn.send.last_received = self.inner.out.moment;
                    conn.send.mark(&mut self.inner.out);
                }
            }
        }
    }

    /// Bytes of heap that compressors and inflaters hold that no connection owns.
    pub(crate) fn compression_memory(&self) -> usize {
        self.parts.pool.inflaters.memory() + self.inner.out.compressors.memory()
    }
}

const EXTENSIONS: &str = "sec-websocket-extensions";
