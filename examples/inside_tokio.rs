//! A context as a task on tokio's current-thread runtime.
//!
//!     cargo run --example inside_tokio
//!
//! tokio watches one descriptor, the context's. A turn that does not wait follows when it is
//! readable, and when the context's next deadline has come. Ends with status 0 when the client
//! was answered and another task of the runtime has ticked.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout_at};
use wsloop::{
    ClientConnectInfo, Close, ConnectError, Context, ContextConfig, Cx, Established, Message,
    Protocol, Side, VhostConfig, Wsi, WsiId,
};

/// Both sides: the server answers with what it got, the client asks and keeps the answer.
#[derive(Default)]
struct Echo {
    outcome: Option<Result<String, String>>,
}

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        if wsi.side() == Side::Client {
            wsi.send_text("hello")?;
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        match (wsi.side(), message) {
            (Side::Client, Message::Text(text)) => self.outcome = Some(Ok(text.to_owned())),
            _ => drop(wsi.send(message)?),
        }
        Ok(())
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.outcome = Some(Err(error.to_string()));
    }
}

/// Waits until the context has something to do, and lets it.
async fn turn(context: &mut Context, ready: &AsyncFd<OwnedFd>) -> io::Result<()> {
    match context.next_deadline() {
        // Cleared in front of the turn: what comes during it must not be forgotten.
        None => ready.readable().await?.clear_ready(),
        Some(deadline) => {
            if let Ok(readable) = timeout_at(deadline.into(), ready.readable()).await {
                readable?.clear_ready();
            }
        }
    }
    context.service(Some(Duration::ZERO))
}

async fn talk() -> Result<String, Box<dyn std::error::Error>> {
    let mut context = Context::new(ContextConfig::new())?;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = VhostConfig::new("localhost").listen(address);
    let echo = config.add_protocol("echo", Echo::default());
    let vhost = context.create_vhost(config)?;
    let port = context.listen_addrs(vhost)[0].port();
    context.client_connect(vhost, ClientConnectInfo::new("127.0.0.1", port)?)?;

    #[allow(
        deprecated,
        reason = "its successor is unsafe, and an OwnedFd keeps what that asks"
    )]
    let ready = AsyncFd::new(context.as_fd().try_clone_to_owned()?)?;
    loop {
        turn(&mut context, &ready).await?;
        if let Some(outcome) = context.protocol(echo).and_then(|echo| echo.outcome.take()) {
            return Ok(outcome?);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let other = tokio::spawn(sleep(Duration::from_millis(20)));
        println!("answered {:?}", talk().await?);
        Ok(other.await?)
    })
}
