//! permessage-deflate (RFC 7692) in the loop, on a simulated network.
#![cfg(all(feature = "sim", feature = "deflate"))]

#[path = "hostile/common.rs"]
#[allow(dead_code, reason = "shared with the hostile tests")]
mod common;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wsloop::ws::deflate::InflaterPool;
use wsloop::ws::{Delivery, Item, ProtocolError, Recv, RecvLimits, RecvPool};
use wsloop::{
    ClientConnectInfo, Close, Compression, Context, ContextConfig, DeflateConfig, DeflateParams,
    Established, Fin, Limits, Message, MessageKind, Protocol, SendOptions, Side, Takeover,
    VhostConfig, Wsi,
};

use common::{SIDES, Session, frames, join};
use support::{ADDR, Recorder, World, addr, close_payload, masked, plain};

const TAKEOVERS: [Takeover; 4] = [
    Takeover::None,
    Takeover::Client,
    Takeover::Server,
    Takeover::Both,
];

fn upgrade_with(extensions: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: {extensions}\r\n\r\n"
    )
    .into_bytes()
}

/// What both ends of a connection in one context got, and what they agreed on.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<(Vec<String>, Vec<Option<DeflateParams>>)>>);

/// Sends what it gets back, twice.
struct Twice(Seen);

impl Protocol for Twice {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<(), Close> {
        assert_eq!(how.deflate, wsi.deflate());
        self.0.0.lock().unwrap().1.push(how.deflate);
        Ok(())
    }

    fn on_message(&mut self, wsi: &mut Wsi<'_>, (): &mut (), message: Message<'_>) -> Result<(), Close> {
        wsi.send(message)?;
        wsi.send(message)?;
        Ok(())
    }
}

/// Says something at first and writes down what comes.
struct Says(Seen, Vec<String>);

impl Protocol for Says {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, how: &Established<'_>) -> Result<(), Close> {
        assert_eq!(how.deflate, wsi.deflate());
        self.0.0.lock().unwrap().1.push(how.deflate);
        for (at, text) in self.1.iter().enumerate() {
            match at % 3 {
                0 => wsi.send_text(text)?,
                1 => wsi.send_with(Message::Text(text), SendOptions::new().compression(Compression::Never))?,
                _ => {
                    let cut = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
                    let (a, b) = text.split_at(cut.unwrap());
                    wsi.send_fragment(MessageKind::Text, a.as_bytes(), Fin::More)?;
                    wsi.send_fragment(MessageKind::Text, b.as_bytes(), Fin::More)?;
                    wsi.send_fragment(MessageKind::Text, b"", Fin::Last)?
                }
            };
        }
        Ok(())
    }

    fn on_message(&mut self, _: &mut Wsi<'_>, (): &mut (), message: Message<'_>) -> Result<(), Close> {
        if let Message::Text(text) = message {
            self.0.0.lock().unwrap().0.push(text.to_owned());
        }
        Ok(())
    }
}

fn texts() -> Vec<String> {
    vec![
        "{\"id\":1,\"name\":\"sensor\",\"value\":0.25}".repeat(30),
        "never compressed ".repeat(100),
        "{\"id\":2,\"name\":\"sensor\",\"value\":0.75}".repeat(30),
        String::new(),
        "short".to_owned(),
        "\u{1f600}".repeat(100_000),
        "a".repeat(1 << 20),
    ]
}

/// A client and a server of one context with these settings; what they agreed on.
fn exchange(server: Option<DeflateConfig>, client: Option<DeflateConfig>) -> Option<DeflateParams> {
    let net = wsloop::sim::Net::new(7);
    let mut context = Context::simulated(&net, ContextConfig::new()).unwrap();
    let seen = Seen::default();
    let limits = Limits::default().with_output_bytes(16 << 20);
    let mut config = VhostConfig::new("a.test").listen(addr()).limits(limits.clone());
    config = config.protocol("twice", Twice(seen.clone()));
    if let Some(deflate) = server {
        config = config.deflate(deflate);
    }
    context.create_vhost(config).unwrap();
    let config = VhostConfig::new("c.test").limits(limits);
    let vhost = context.create_vhost(config.protocol("says", Says(seen.clone(), texts()))).unwrap();
    let mut info = ClientConnectInfo::new("10.0.0.1", 80).unwrap();
    if let Some(deflate) = client {
        info = info.deflate(deflate);
    }
    context.client_connect(vhost, info).unwrap();
    for _ in 0..400 {
        context.service(Some(Duration::ZERO)).unwrap();
    }
    let (got, agreed) = std::mem::take(&mut *seen.0.lock().unwrap());
    let expected: Vec<_> = texts().into_iter().flat_map(|text| [text.clone(), text]).collect();
    assert!(got == expected, "{} texts came back", got.len());
    assert_eq!(context.connections(), 2);
    let [one, other] = agreed[..] else {
        panic!("{agreed:?}");
    };
    assert_eq!(one.is_some(), other.is_some());
    // The client may promise more than it was asked for.
    one.zip(other).map(|(server, client)| {
        let bits = client.client_max_window_bits.min(server.client_max_window_bits);
        assert_eq!(server.server_max_window_bits, client.server_max_window_bits);
        DeflateParams {
            client_max_window_bits: bits,
            ..if server.client_no_context_takeover { server } else { client }
        }
    })
}
