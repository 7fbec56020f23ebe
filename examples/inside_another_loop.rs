//! A context inside somebody else's event loop, which here is calloop's.
//!
//!     cargo run --example inside_another_loop
//!
//! The other loop watches one descriptor, the context's, and sleeps no longer than until the
//! context's next deadline. Whatever ended the sleep, one turn that does not wait follows. Ends
//! with status 0 when the client was answered and the other loop's own timer has ticked.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use calloop::generic::Generic;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{EventLoop, Interest, Mode, PostAction};
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

#[expect(
    clippy::disallowed_methods,
    reason = "the program around the library reads the clock"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut context = Context::new(ContextConfig::new())?;
    let mut config =
        VhostConfig::new("localhost").listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let echo = config.add_protocol("echo", Echo::default());
    let vhost = context.create_vhost(config)?;
    let port = context.listen_addrs(vhost)[0].port();
    context.client_connect(vhost, ClientConnectInfo::new("127.0.0.1", port)?)?;

    let mut outer = EventLoop::<u32>::try_new()?;
    let descriptor = context.as_fd().try_clone_to_owned()?;
    let ready = Generic::new(descriptor, Interest::READ, Mode::Level);
    let source = |_, _: &mut _, _: &mut u32| Ok(PostAction::Continue);
    outer.handle().insert_source(ready, source)?;
    let timer = Timer::from_duration(Duration::from_millis(5));
    outer.handle().insert_source(timer, |_, (), ticks| {
        *ticks += 1;
        TimeoutAction::ToDuration(Duration::from_millis(5))
    })?;

    let (mut ticks, mut answer) = (0, None);
    while answer.is_none() || ticks < 3 {
        let deadline = context.next_deadline();
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        outer.dispatch(timeout, &mut ticks)?;
        context.service(Some(Duration::ZERO))?;
        if let Some(outcome) = context.protocol(echo).and_then(|echo| echo.outcome.take()) {
            answer = Some(outcome?);
        }
    }
    println!(
        "answered {:?} after {ticks} ticks of the other loop",
        answer.unwrap_or_default()
    );
    Ok(())
}
