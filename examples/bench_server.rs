//! An echo server that says nothing, for load generators.
//!
//!     cargo run --profile fast --example bench_server PORT [--tls CERT KEY]
//!
//! It listens on 127.0.0.1 and takes messages of up to 128 MiB. With `--tls` (and PEM files for the
//! chain and the key) it speaks wss, otherwise ws.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use wsloop::{
    Close, Context, ContextConfig, Established, Limits, ListenConfig, Message, Protocol,
    VhostConfig, Wsi,
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
        // A peer that sends but does not read is not read from either, until it has caught up.
        if wsi.send(message)?.buffered > HIGH_WATER {
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

const MESSAGE_MAX: usize = 128 * 1024 * 1024;
const HIGH_WATER: usize = 1024 * 1024;
const RECEIVE_BUFFER: usize = 512 * 1024;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (port, files) = match arguments[..] {
        [port] => (port, None),
        [port, "--tls", cert, key] => (port, Some((cert, key))),
        _ => return Err("say PORT [--tls CERT KEY]".into()),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    // The queue takes what one message more than the high water comes to.
    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let vhost = VhostConfig::new("localhost")
        .limits(limits)
        .protocol("echo", Echo);
    let vhost = listen(vhost, ListenConfig::new(address).backlog(4096), files)?;
    let mut context = Context::new(ContextConfig::new().receive_buffer(RECEIVE_BUFFER))?;
    context.create_vhost(vhost)?;
    Ok(context.run()?)
}

#[cfg(feature = "tls")]
fn listen(
    vhost: VhostConfig,
    listen: ListenConfig,
    files: Option<(&str, &str)>,
) -> Result<VhostConfig, Box<dyn Error>> {
    use wsloop::PlaintextPolicy;
    use wsloop::tls::{Identity, ServerTls};

    let Some((cert, key)) = files else {
        return Ok(vhost.listen(listen));
    };
    let identity = Identity::from_pem_files(cert, key)?;
    Ok(vhost
        .listen(listen.tls(PlaintextPolicy::Reject))
        .server_tls(ServerTls::new(identity)))
}

#[cfg(not(feature = "tls"))]
fn listen(
    vhost: VhostConfig,
    listen: ListenConfig,
    files: Option<(&str, &str)>,
) -> Result<VhostConfig, Box<dyn Error>> {
    match files {
        None => Ok(vhost.listen(listen)),
        Some(_) => Err("built without TLS".into()),
    }
}
