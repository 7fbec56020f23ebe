//! A whole server on a simulated network, and a script of what happens to it: what strangers send
//! and in which pieces, how far each read and write gets, which call fails and how, when they
//! vanish, and how time goes by. The first byte says whether TLS and compression take part.
//!
//! No call panics, every connection and every exchange is told of once, there is an end to the work
//! of every turn, and nothing is kept of those who have gone.
#![no_main]

mod tls_configs;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wsloop::hook::{FnHook, HookAnswer, HookChain};
use wsloop::sim::Net;
use wsloop::tls::ServerTls;
use wsloop::{
    Accept, BodyLength, Chunk, Close, CloseCause, CloseCode, CloseFrame, Compression, Context,
    ContextConfig, Cx, DeflateConfig, Established, ExchangeId, ExchangeOutcome, Fin, Http,
    HttpFailure, HttpHandler, HttpRequest, Limits, ListenConfig, Message, MessageKind, Mount,
    PlaintextPolicy, Protocol, Refuse, Request, RequestId, Response, RetryPolicy, SendOptions,
    TimerTag, VhostConfig, Wsi, WsiId,
};

use world::{
    CONFIGS, HEADS, Model, Script, Shared, Stranger, drain, fault, frame, let_time_pass, lock, net,
    turn,
};

fuzz_target!(|bytes: &[u8]| {
    let mut script = Script::new(bytes);
    let variant = script.byte();
    let net = net(variant);
    let model = Shared::<Model>::default();
    let mut context =
        Context::simulated(&net, context_config()).expect("nothing of the system is opened");
    let address: SocketAddr = "10.0.0.1:80".parse().expect("an address");
    let vhost = context
        .create_vhost(vhost_config(variant, address, &model))
        .expect("it is fit to be made");
    let mut scene = Scene {
        address,
        strangers: Vec::new(),
        dials: 0,
        is_tls: variant & TLS != 0,
        piece: usize::MAX,
    };
    while !script.is_over() {
        scene.act(&mut script, &net);
        turn(&mut context, &net);
    }
    scene.strangers.clear();
    drain(&mut context, &net);
    lock(&model).check_over();
    context.destroy_vhost(vhost).expect("it is there");
    // A listener that was at rest had a timer; it finds nothing.
    net.advance(Duration::from_secs(1));
    turn(&mut context, &net);
    assert_eq!(context.next_deadline(), None, "a timer of nobody");
});

const TLS: u8 = 1;
const DEFLATE: u8 = 2;
const SERVE_PLAIN: u8 = 4;

fn context_config() -> ContextConfig {
    ContextConfig::new()
        .max_connections(6)
        .max_tls_handshakes(3)
        .max_inflaters(2)
        .max_context_takeovers(2)
        .receive_buffer(4096)
        .turn_budget(16 * 1024)
}

fn vhost_config(variant: u8, address: SocketAddr, model: &Shared<Model>) -> VhostConfig {
    let mut limits = Limits::default().with_message_bytes(16 * 1024);
    limits.output_bytes = 32 * 1024;
    limits.output_low_water = 2048;
    limits.body_bytes = 256;
    let mut listen = ListenConfig::new(address);
    if variant & TLS != 0 {
        listen = listen.tls(match variant & SERVE_PLAIN {
            0 => PlaintextPolicy::RedirectToHttps,
            _ => PlaintextPolicy::Serve,
        });
    }
    let socket = || Socket {
        model: Arc::clone(model),
        waiting: Vec::new(),
    };
    let mut config = VhostConfig::new("a.test");
    let _ = config.add_chunk_protocol("chunks", socket());
    let asks = |cx: &mut Cx<'_>, request: &wsloop::HookRequest<'_>| {
        let _ = cx;
        Ok(match &*request.path() {
            "/ask" => HookAnswer::Later,
            "/deny" => HookAnswer::deny(403),
            _ => HookAnswer::Next,
        })
    };
    let hooks = HookChain::new().hook("asks", FnHook::new(asks));
    let policy = RetryPolicy::builder()
        .ping_after(Duration::from_secs(5))
        .hang_up_after(Duration::from_secs(9));
    let mut config = config
        .protocol("messages", socket())
        .default_protocol("messages")
        .listen(listen)
        .limits(limits)
        .hooks(hooks.otherwise_allow())
        .retry_and_idle_policy(policy.build().expect("a policy"))
        .mount(Mount::handler("/e", Exchanges(Arc::clone(model))))
        .mount(Mount::redirect("/r", 308, "/e"))
        .page("/page", "text/plain", "page\n");
    if variant & TLS != 0 {
        config = config.server_tls(ServerTls::from_rustls(Arc::clone(&CONFIGS.server)));
    }
    if variant & DEFLATE != 0 {
        config = config.deflate(DeflateConfig::new().threshold(8));
    }
    config
}

/// The strangers, the one who acts last.
struct Scene {
    address: SocketAddr,
    strangers: Vec<Stranger>,
    dials: usize,
    is_tls: bool,
    /// How what is sent next is cut.
    piece: usize,
}

impl Scene {
    fn act(&mut self, script: &mut Script, net: &Net) {
        match script.byte() % 16 {
            0 => self.dial(script, net),
            1 => self.switch(script),
            2 => self.write(HEADS[script.size() % HEADS.len()]),
            3 | 4 => {
                let frame = frame(script);
                self.write(&frame);
            }
            5 => {
                let len = script.size();
                let bytes = script.take(len);
                self.write(&bytes);
            }
            6 => {
                let len = script.size();
                let bytes = script.take(len);
                self.with(|stranger| stranger.write_raw(&bytes));
            }
            7 => {
                let max = [1, 50, 2000, usize::MAX][script.size() % 4];
                self.with(|stranger| stranger.read(max));
            }
            8 => let_time_pass(script, net),
            9 => fault(script, net),
            10 => net.limit_io([usize::MAX, 1, 7, 100, 5000][script.size() % 5]),
            11 => net.set_capacity([64 * 1024, 1, 100, 5000][script.size() % 4]),
            12 => self.piece = [usize::MAX, 1, 13, 500][script.size() % 4],
            13 => self.with(Stranger::shutdown_write),
            14 => self.leave(script),
            _ => self.with(Stranger::say_goodbye),
        }
    }

    fn dial(&mut self, script: &mut Script, net: &Net) {
        let speaks_tls = self.is_tls && script.byte() % 4 != 3;
        if self.dials == MOST_DIALS {
            return;
        }
        self.dials += 1;
        if let Ok(peer) = net.dial(self.address) {
            let client = match script.byte() % 2 {
                0 => &CONFIGS.client,
                _ => &CONFIGS.client_of_tls12,
            };
            let mut stranger = Stranger::new(peer, speaks_tls.then_some(client));
            stranger.write(&[], self.piece);
            self.strangers.push(stranger);
        }
    }

    fn switch(&mut self, script: &mut Script) {
        let count = self.strangers.len().max(1);
        self.strangers.rotate_left(script.size() % count);
    }

    fn leave(&mut self, script: &mut Script) {
        if let Some(stranger) = self.strangers.pop() {
            match script.byte() % 2 {
                0 => drop(stranger),
                _ => stranger.reset(),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let piece = self.piece;
        self.with(|stranger| stranger.write(bytes, piece));
    }

    fn with(&mut self, f: impl FnOnce(&mut Stranger)) {
        self.strangers.last_mut().map(f);
    }
}

/// Does what the first byte of a message says.
struct Socket {
    model: Shared<Model>,
    /// Requests that wait for a verdict.
    waiting: Vec<RequestId>,
}

impl Protocol for Socket {
    type Session = usize;

    fn filter_upgrade(&mut self, cx: &mut Cx<'_>, request: &Request<'_>) -> Result<Accept, Refuse> {
        match request.path() {
            "/later" => {
                self.waiting.push(request.id());
                cx.set_timer(Duration::from_secs(1), TimerTag(1));
                Ok(Accept::later())
            }
            "/no" => Err(Refuse::new(403).body("no\n")),
            _ => Ok(Accept::new()),
        }
    }

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<usize, Close> {
        lock(&self.model).established(wsi.id());
        Ok(0)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        left: &mut usize,
        message: Message<'_>,
    ) -> Result<(), Close> {
        lock(&self.model).heard_of(wsi.id());
        *left = message.len();
        match message.as_bytes().first().copied().unwrap_or(0) {
            b'a' => {
                wsi.send_fragment(MessageKind::Binary, message.as_bytes(), Fin::More)?;
                wsi.request_writable();
            }
            b'b' => drop(wsi.send_bytes(vec![b'b'; 9000].into())),
            b'c' => drop(wsi.cx().broadcast(message, |_| true)),
            b'd' => wsi.close(Close::new(CloseCode::NORMAL, "as asked")),
            b'e' => {
                wsi.pause_reading();
                wsi.set_timer(Duration::from_secs(2), TimerTag(2));
            }
            b'f' => wsi.request_writable(),
            b'g' => drop(wsi.send_ping(b"ping")),
            b'h' => return Err(Close::new(CloseCode::POLICY_VIOLATION, "as asked")),
            b'i' => wsi.abort(),
            b'j' => while wsi.send(message).is_ok() {},
            b'k' => wsi
                .cx()
                .for_each_peer(|mut peer| peer.close(Close::normal())),
            b'l' => {
                let options = SendOptions::default().compression(Compression::Never);
                wsi.send_with(message, options)?;
            }
            _ => drop(wsi.send(message)?),
        }
        Ok(())
    }

    fn on_chunk(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut usize,
        chunk: Chunk<'_>,
    ) -> Result<(), Close> {
        lock(&self.model).heard_of(wsi.id());
        wsi.send_binary(chunk.data)?;
        Ok(())
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, left: &mut usize) -> Result<(), Close> {
        lock(&self.model).heard_of(wsi.id());
        // The end of a fragmented message, or the message of that kind.
        wsi.send_fragment(MessageKind::Binary, &vec![b'w'; *left], Fin::Last)?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            wsi.request_writable();
        }
        Ok(())
    }

    fn on_pong(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut usize,
        _: &[u8],
        _: Option<Duration>,
    ) -> Result<(), Close> {
        lock(&self.model).heard_of(wsi.id());
        Ok(())
    }

    fn on_peer_close(&mut self, wsi: &mut Wsi<'_>, _: &mut usize, _: Option<CloseFrame<'_>>) {
        lock(&self.model).heard_of(wsi.id());
        assert!(wsi.send_text("too late").is_err());
    }

    fn on_timer(&mut self, wsi: &mut Wsi<'_>, _: &mut usize, _: TimerTag) -> Result<(), Close> {
        lock(&self.model).heard_of(wsi.id());
        wsi.resume_reading();
        Ok(())
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, _: TimerTag) {
        for (nth, id) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let verdict = match nth % 2 {
                0 => Ok(Accept::new()),
                _ => Err(Refuse::new(403)),
            };
            let _ = cx.decide(id, verdict);
        }
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, id: WsiId, _: usize, _: &CloseCause) {
        lock(&self.model).closed(id);
        assert!(cx.peer(id).is_none());
    }
}

/// Answers at the end of the body: whole, in pieces, or later.
struct Exchanges(Shared<Model>);

impl HttpHandler for Exchanges {
    type Exchange = (String, usize);

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<(String, usize), HttpFailure> {
        if request.path_below() == "no" {
            return Err(Response::text(403, "no\n").into());
        }
        lock(&self.0).asked(http.id());
        Ok((request.path_below().to_owned(), 3000))
    }

    fn on_body(
        &mut self,
        http: &mut Http<'_>,
        (_, left): &mut (String, usize),
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        lock(&self.0).answering(http.id());
        *left += data.len();
        if data.first() == Some(&b'p') {
            http.pause_reading();
            http.set_timer(Duration::from_secs(1), TimerTag(1));
        }
        Ok(())
    }

    fn on_body_end(
        &mut self,
        http: &mut Http<'_>,
        (path, left): &mut (String, usize),
    ) -> Result<(), HttpFailure> {
        lock(&self.0).answering(http.id());
        match path.as_str() {
            "stream" => {
                http.start(200, &Default::default(), BodyLength::Unknown)?;
                http.request_writable();
            }
            "later" => drop(http.set_timer(Duration::from_secs(2), TimerTag(2))),
            "never" => {}
            _ => drop(http.respond(Response::new(200).body(vec![b'r'; *left]))?),
        }
        Ok(())
    }

    fn on_writable(
        &mut self,
        http: &mut Http<'_>,
        (_, left): &mut (String, usize),
    ) -> Result<(), HttpFailure> {
        lock(&self.0).answering(http.id());
        let len = (*left).min(700);
        http.write(&vec![b's'; len])?;
        *left -= len;
        if *left == 0 {
            http.finish()?;
        } else {
            http.request_writable();
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        _: &mut (String, usize),
        tag: TimerTag,
    ) -> Result<(), HttpFailure> {
        lock(&self.0).answering(http.id());
        http.resume_reading();
        if tag == TimerTag(2) {
            http.respond(Response::text(200, "late\n"))?;
        }
        Ok(())
    }

    fn on_read_closed(
        &mut self,
        http: &mut Http<'_>,
        (path, _): &mut (String, usize),
    ) -> Result<(), HttpFailure> {
        lock(&self.0).answering(http.id());
        match path.as_str() {
            "later" | "stream" => Ok(()),
            _ => Err(HttpFailure::abort()),
        }
    }

    fn on_done(&mut self, _: &mut Cx<'_>, id: ExchangeId, _: (String, usize), _: &ExchangeOutcome) {
        lock(&self.0).answered(id);
    }
}

/// Handshakes are what costs time here.
const MOST_DIALS: usize = 16;
