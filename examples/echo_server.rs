//! A WebSocket server that sends every message back.
//!
//!     cargo run --example echo_server [ADDRESS:PORT] [--deflate shared|takeover]
//!
//! The address is 127.0.0.1:9001 if it is not said. With `--deflate` clients that offer it get
//! permessage-deflate, with compressors that connections share, or with one for each.

#[path = "support/args.rs"]
mod args;
#[cfg(feature = "deflate")]
#[path = "support/deflate.rs"]
mod deflate;

use std::error::Error;
use std::process::ExitCode;

use args::Args;

use wsloop::{
    Close, Context, ContextConfig, Established, Limits, Message, Protocol, VhostConfig, Wsi,
};

struct Echo;

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        wsi.send(message)?;
        // A peer that sends but does not read is not read from either, until it has caught up.
        if wsi.buffered_out() > HIGH_WATER {
            wsi.pause_reading();
            wsi.request_writable();
        }
        Ok(())
    }

    fn on_writable(&mut self, wsi: &mut Wsi<'_>, _: &mut ()) -> Result<(), Close> {
        wsi.resume_reading();
        Ok(())
    }
}

const MESSAGE_MAX: usize = 64 * 1024 * 1024;
const HIGH_WATER: usize = 256 * 1024;

fn main() -> ExitCode {
    args::exit("echo_server", serve(Args::new()))
}

#[cfg_attr(
    not(feature = "deflate"),
    expect(unused_mut, reason = "there is no option without it")
)]
fn serve(mut args: Args) -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "deflate")]
    let [deflate] = args.values::<String, 1>(["--deflate"])?;
    let address = args.address("127.0.0.1:9001")?;
    // The autobahn suite sends a message in 65 536 fragments.
    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let mut context = Context::new(ContextConfig::new())?;
    let vhost = VhostConfig::new("localhost")
        .listen(address)
        .limits(limits)
        .protocol("echo", Echo);
    #[cfg(feature = "deflate")]
    let vhost = match deflate::config(deflate.as_deref())? {
        Some(deflate) => vhost.deflate(deflate),
        None => vhost,
    };
    let vhost = context.create_vhost(vhost)?;
    for address in context.listen_addrs(vhost) {
        args::say(format_args!("echoing on ws://{address}/"));
    }
    context.run()?;
    Ok(())
}
