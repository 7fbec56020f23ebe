//! A WebSocket client that sends every message back until the connection ends.
//!
//!     cargo run --example echo_client URL
//!
//! Ends with status 0 after a clean close, else with 1 and one line that says what failed where.

use std::process::ExitCode;

use wsloop::{
    ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, Cx, Established,
    Limits, Message, Protocol, VhostConfig, Wsi, WsiId,
};

/// Holds how the connection ended, once it has.
#[derive(Default)]
struct Echo {
    outcome: Option<Result<(), String>>,
}

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
        Ok(())
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        let outcome = if cause.is_clean() {
            Ok(())
        } else {
            Err(format!("websocket: {cause}"))
        };
        self.outcome = Some(outcome);
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.outcome = Some(Err(error.to_string()));
    }
}

const MESSAGE_MAX: usize = 64 * 1024 * 1024;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo_client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("usage: echo_client ws://HOST[:PORT]/PATH")?;
    let info = ClientConnectInfo::from_url(&url)?;

    let limits = Limits::default()
        .with_message_bytes(MESSAGE_MAX)
        .with_output_bytes(2 * MESSAGE_MAX)
        .with_fragments(100_000);
    let mut context = Context::new(ContextConfig::new())?;
    let mut vhost = VhostConfig::new("client").limits(limits);
    let echo = vhost.add_protocol("echo", Echo::default());
    let vhost = context.create_vhost(vhost)?;
    context.client_connect(vhost, info)?;
    loop {
        context.service(None)?;
        let outcome = context.protocol(echo).and_then(|echo| echo.outcome.take());
        if let Some(outcome) = outcome {
            return Ok(outcome?);
        }
    }
}
