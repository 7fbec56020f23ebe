//! A chat server: the path is the room, and every line goes to everybody in it.
//!
//!     cargo run --example chat [ADDRESS:PORT]      (default 127.0.0.1:9001)
//!
//! Open the printed address in two browser windows. Any WebSocket client will do as well: each
//! text message is one line; those of others come as `guest-1: hello`, news as `* guest-1 joined`.

#[path = "support/args.rs"]
mod args;

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;

use args::Args;
use wsloop::{
    Close, CloseCause, CloseCode, Context, ContextConfig, Cx, Established, Handshake, Limits,
    Message, Protocol, VhostConfig, Wsi, WsiId,
};

/// Who is in which room. The name is the session of the connection.
#[derive(Default)]
struct Chat {
    rooms: BTreeMap<WsiId, String>,
    guests: u64,
}

impl Chat {
    fn say(&self, cx: &mut Cx<'_>, room: &str, line: &str) {
        let in_room = |id| self.rooms.get(&id).is_some_and(|of| of == room);
        let outcome = cx.broadcast(Message::Text(line), in_room);
        if outcome.full > 0 {
            cx.for_each_peer(|mut peer| {
                if in_room(peer.id()) && peer.buffered_out() + line.len() > QUEUE_MAX {
                    peer.close(Close::new(CloseCode::TRY_AGAIN_LATER, "reading too slowly"));
                }
            });
        }
    }
}

impl Protocol for Chat {
    type Session = String;

    fn on_established(
        &mut self,
        wsi: &mut Wsi<'_>,
        how: &Established<'_>,
    ) -> Result<String, Close> {
        let Handshake::Request(head) = &how.head else {
            return Err(CloseCode::INTERNAL_ERROR.into());
        };
        self.guests += 1;
        let name = format!("guest-{}", self.guests);
        self.rooms.insert(wsi.id(), head.path().to_owned());
        self.say(wsi.cx(), head.path(), &format!("* {name} joined"));
        Ok(name)
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        name: &mut String,
        message: Message<'_>,
    ) -> Result<(), Close> {
        let (Message::Text(line), Some(room)) = (message, self.rooms.get(&wsi.id())) else {
            return Err(CloseCode::UNSUPPORTED_DATA.into());
        };
        if line.len() > LINE_MAX {
            return Err(CloseCode::MESSAGE_TOO_BIG.into());
        }
        self.say(wsi.cx(), room, &format!("{name}: {line}"));
        Ok(())
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, id: WsiId, name: String, _: &CloseCause) {
        if let Some(room) = self.rooms.remove(&id) {
            self.say(cx, &room, &format!("* {name} left"));
        }
    }
}

const PAGE: &str = include_str!("chat.html");
const LINE_MAX: usize = 4 * 1024;
const QUEUE_MAX: usize = 64 * LINE_MAX;

fn main() -> ExitCode {
    args::exit("chat", serve(Args::new()))
}

fn serve(args: Args) -> Result<(), Box<dyn Error>> {
    let address = args.address("127.0.0.1:9001")?;
    let limits = Limits::default()
        .with_message_bytes(2 * LINE_MAX)
        .with_output_bytes(QUEUE_MAX);
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = VhostConfig::new("localhost")
        .listen(address)
        .limits(limits)
        .page("/", "text/html; charset=utf-8", PAGE)
        .protocol("chat", Chat::default());
    let vhost = context.create_vhost(vhost)?;
    for address in context.listen_addrs(vhost) {
        args::say(format_args!("chatting on http://{address}/"));
    }
    Ok(context.run()?)
}
