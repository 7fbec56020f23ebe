//! WebSocket on a poll loop: libwebsockets' context / vhost / wsi model as an embeddable Rust
//! library, client and server, without an async runtime.
//!
//! # The model
//!
//! A [`Context`] is one thread's event loop and the owner of everything in it. It serves
//! [`vhosts`](VhostConfig): a set of names, listeners, protocols and limits. A connection is a
//! *wsi*; inside its callbacks it is a borrowed [`Wsi`], outside a [`WsiId`] that can be kept and
//! never names anybody else. The application implements [`Protocol`]: the object itself holds what
//! its connections share, [`Protocol::Session`] holds what belongs to one. The one call that may
//! come from another thread is [`CancelService::cancel_service`], which wakes the loop and is
//! followed by [`Protocol::on_wake`].
//!
//! | Noun | Is | In libwebsockets |
//! |---|---|---|
//! | [`Context`] | the loop and the owner of everything; `Send`, used through `&mut` | `lws_context` |
//! | [`VhostConfig`], [`VhostId`] | names, listeners, protocols, limits, deadlines | `lws_vhost` |
//! | [`Wsi`], [`WsiId`] | one connection: a view in a callback, a name outside | `struct lws *` |
//! | [`Protocol`] | the callbacks, with the data per vhost (`self`) and per connection (`Session`) | protocol, vhd, pss |
//! | [`Cx`], [`Peer`] | the loop and the other connections, from a callback | `lws_get_context`, `lws_callback_all_protocol` |
//! | [`ClientConnectInfo`] | what to dial and what to say | `lws_client_connect_info` |
//! | [`Hook`], [`HookChain`] | who may connect, asked before the protocol | `LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION` |
//! | [`RetryPolicy`] | back-off, and when silence is too long | `lws_retry_bo_t` |
//! | [`CancelService`] | wakes the loop from any thread | `lws_cancel_service` |
//!
//! Sends answer at once: [`Queued`], or a [`SendError`] that says why not, and never block. What
//! one callback sends leaves in one write when it has returned. A peer that does not read fills
//! its queue until sends answer [`SendError::Full`]; [`Wsi::request_writable`] tells when to go
//! on. Every connection ends in exactly one [`Protocol::on_closed`] with a [`CloseCause`], every
//! client's attempt that fails in exactly one [`Protocol::on_connect_error`] with a
//! [`ConnectError`] that names the stage.
//!
//! # A server
//!
//! ```no_run
//! use wsloop::{Close, Context, ContextConfig, Established, Message, Protocol, VhostConfig, Wsi};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     type Session = u64; // messages so far
//!
//!     fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<u64, Close> {
//!         Ok(0)
//!     }
//!
//!     fn on_message(
//!         &mut self,
//!         wsi: &mut Wsi<'_>,
//!         count: &mut u64,
//!         message: Message<'_>,
//!     ) -> Result<(), Close> {
//!         *count += 1;
//!         wsi.send(message)?; // `?` closes the connection when the peer does not keep up
//!         Ok(())
//!     }
//! }
//!
//! fn serve() -> Result<(), Box<dyn std::error::Error>> {
//!     let address: std::net::SocketAddr = "127.0.0.1:9001".parse()?;
//!     let mut context = Context::new(ContextConfig::new())?;
//!     context.create_vhost(VhostConfig::new("localhost").listen(address).protocol("echo", Echo))?;
//!     context.run()?;
//!     Ok(())
//! }
//!
//! fn main() {
//!     if let Err(error) = serve() {
//!         eprintln!("{error}"); // a `main` that returns it prints its `Debug` form instead
//!         std::process::exit(1);
//!     }
//! }
//! ```
//!
//! # A client
//!
//! ```no_run
//! use wsloop::{
//!     ClientConnectInfo, Close, ConnectError, Context, ContextConfig, Cx, Established, Message,
//!     Protocol, RetryPolicy, VhostConfig, Wsi, WsiId,
//! };
//!
//! struct Listen;
//!
//! impl Protocol for Listen {
//!     type Session = ();
//!
//!     fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
//!         wsi.send_text("hello")?;
//!         Ok(())
//!     }
//!
//!     fn on_message(&mut self, _: &mut Wsi<'_>, _: &mut (), message: Message<'_>) -> Result<(), Close> {
//!         println!("{message:?}");
//!         Ok(())
//!     }
//!
//!     fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
//!         eprintln!("{error}"); // after the retries that the policy allows
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let mut context = Context::new(ContextConfig::new())?;
//!     let vhost = context.create_vhost(VhostConfig::new("client").protocol("listen", Listen))?;
//!     let info = ClientConnectInfo::from_url("ws://localhost:9001/")?.reconnect(RetryPolicy::default());
//!     context.client_connect(vhost, info)?;
//!     context.run()?;
//!     Ok(())
//! }
//! ```
//!
//! # TLS
//!
//! A listener speaks TLS when its [`ListenConfig`] says so, and shows the certificate of the vhost
//! that the client names (SNI). What comes without TLS to the same port is rejected, redirected
//! or, with `PlaintextPolicy::Serve`, served: ws and wss on one port. A client trusts what its
//! vhost's `ClientTls` says.
//!
//! ```no_run
//! # #[cfg(feature = "tls")]
//! # mod example {
//! use wsloop::tls::{ClientTls, Identity, Roots, ServerTls};
//! use wsloop::{ClientConnectInfo, Context, ListenConfig, PlaintextPolicy, Protocol, VhostConfig};
//!
//! fn serve<P: Protocol>(context: &mut Context, echo: P) -> Result<(), Box<dyn std::error::Error>> {
//!     let address: std::net::SocketAddr = "127.0.0.1:9443".parse()?;
//!     let identity = Identity::from_pem_files("server.pem", "server.key")?;
//!     let vhost = VhostConfig::new("a.example")
//!         .listen(ListenConfig::new(address).tls(PlaintextPolicy::Serve)) // ws and wss
//!         .server_tls(ServerTls::new(identity))
//!         .protocol("echo", echo);
//!     context.create_vhost(vhost)?;
//!     Ok(())
//! }
//!
//! fn dial<P: Protocol>(context: &mut Context, protocol: P) -> Result<(), Box<dyn std::error::Error>> {
//!     let tls = ClientTls::new(Roots::from_pem_file("ca.pem")?);
//!     let vhost = VhostConfig::new("client").client_tls(tls).protocol("client", protocol);
//!     let vhost = context.create_vhost(vhost)?;
//!     context.client_connect(vhost, ClientConnectInfo::from_url("wss://a.example:9443/")?)?;
//!     Ok(())
//! }
//! # }
//! ```
//!
//! # HTTP beside WebSocket
//!
//! A vhost serves plain requests, too: [`VhostConfig::mount`] gives a prefix of its paths to an
//! [`HttpHandler`], a function, a fixed [`Response`] or a protocol. A handler has its own state per
//! request, gets the body as it arrives, and answers at once, in pieces, or later through
//! [`Cx::exchange`].
//!
//! # HTTP requests
//!
//! [`Cx::fetch`] makes an HTTP request as a client of a vhost, over a pool of connections that
//! show the vhost's certificate; an [`HttpClientHandler`] is told what comes of it. [`FetchInfo`]
//! says what to ask for: method, headers, a body as bytes or in pieces, deadlines, redirects.
//!
//! # In somebody else's loop
//!
//! [`Context`] has a descriptor ([`AsFd`](std::os::fd::AsFd)) that is readable when there is
//! something to do, [`Context::next_deadline`] says when to come by although it is not, and
//! `service(Some(Duration::ZERO))` does what can be done without waiting.
//!
//! # Without sockets
//!
//! [`ws`] and [`http`] are the protocols without I/O, usable alone. With the feature `sim`,
//! `wsloop::sim` is a simulated network with a virtual clock, on which protocols can be tested.
//!
//! # Features
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `deflate` | yes | compressed messages (permessage-deflate, RFC 7692) |
//! | `log` | yes | warnings through the `log` facade |
//! | `sim` | no | the simulated network |
//! | `aws-lc-rs` | yes | TLS with the cryptography of AWS-LC |
//! | `ring` | no | TLS with that of ring, where AWS-LC is not there |
//! | `tls` | by either | TLS, with a provider that the application installs |
//! | `native-certs`, `webpki-roots` | no | `Roots::system`, `Roots::bundled` |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod arena;
pub mod client;
#[cfg(feature = "deflate")]
mod compression;
#[cfg(not(feature = "deflate"))]
#[path = "compression_none.rs"]
mod compression;
mod config;
mod conn;
mod context;
mod dial;
mod error;
mod exchange;
mod fetch;
mod handler;
pub mod hook;
pub mod http;
mod id;
mod inner;
mod lift;
mod mount;
mod net;
mod pool;
mod protocol;
mod retry;
#[cfg(feature = "tls")]
mod rotation;
#[cfg(feature = "tls")]
mod secure;
#[cfg(not(feature = "tls"))]
#[path = "secure_none.rs"]
mod secure;
mod service;
mod timer;
#[cfg(feature = "tls")]
pub mod tls;
mod upgrade;
mod vhost;
mod waker;
pub mod ws;
mod wsi;

#[cfg(feature = "sim")]
pub use net::sim;

pub use client::{Address, ArgumentError, ArgumentProblem, ClientConnectInfo, ClientTimeouts};
pub use config::{ContextConfig, Limits, ListenConfig, Timeouts, VhostConfig};
#[cfg(feature = "tls")]
pub use config::{NamePolicy, PlaintextPolicy};
pub use conn::Queued;
pub use context::Context;
#[cfg(feature = "tls")]
pub use error::TlsError;
pub use error::{
    CloseCause, CloseKind, CloseSide, ConnectError, ConnectFailure, ConnectStage, ContextError,
    Deadline, DeadlineStage, Gone, NotPending, RefusalReason, SendError, ServerRefusal, Unsent,
    VhostError,
};
pub use fetch::{
    FetchAbort, FetchError, FetchFailure, FetchInfo, FetchStage, FetchTimeouts, FetchWriteError,
    Fetched, HttpClientHandle, HttpClientHandler,
};
pub use handler::{ExchangeOutcome, Http, HttpFailure, HttpHandler, HttpRequest, Responder};
pub use hook::{Hook, HookAnswer, HookChain, HookConfig, HookError, HookRequest};
pub use http::HeaderList;
pub use http::client::{Method, PoolConfig, PoolMetrics, RedirectPolicy};
pub use http::response::{BodyLength, RespondError, Response};
pub use id::{
    ExchangeId, FetchId, HandlerHandle, HookHandle, HookRequestId, ProtocolHandle, RequestId,
    TimerId, TimerTag, VhostId, WsiId,
};
pub use mount::{EmbeddedFiles, FileTransfer, FilesError, Mount, StaticFiles};
#[cfg(feature = "tls")]
pub use protocol::TlsReport;
pub use protocol::{
    Accept, ContextObserver, Established, Handshake, ListenerTrouble, Protocol, Refuse, Request,
};
pub use retry::{RetryPolicy, RetryPolicyBuilder, RetryPolicyError};
pub use waker::CancelService;
#[cfg(feature = "deflate")]
pub use ws::deflate::{
    Compression, DeflateConfig, DeflateConfigError, DeflateParams, SendOptions, Takeover,
};
pub use ws::handshake::Refusal;
pub use ws::send::Fin;
pub use ws::{Chunk, Close, CloseCode, CloseFrame, Message, MessageKind, Side};
pub use wsi::{Broadcast, Cx, Peer, Wsi};
