//! A worker thread has values for the clients of a loop that runs in another thread.
//!
//!     cargo run --example from_another_thread
//!
//! The values travel by a channel that the protocol owns; `cancel_service` tells the loop that
//! there is something in it. The one client is in the same context. Ends with status 0 after the
//! last value.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use wsloop::{
    CancelService, ClientConnectInfo, Close, CloseCause, ConnectError, Context, ContextConfig, Cx,
    Established, Message, Protocol, VhostConfig, Wsi, WsiId,
};

/// The server's side: sends on what comes out of the channel, and closes when that ends.
struct Feed {
    values: Receiver<u32>,
}

impl Protocol for Feed {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Ok(())
    }

    /// Calls of `cancel_service` may have been merged: takes all there is.
    fn on_wake(&mut self, cx: &mut Cx<'_>) {
        loop {
            match self.values.try_recv() {
                Ok(value) => drop(cx.broadcast(Message::Text(&value.to_string()), |_| true)),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    return cx.for_each_peer(|mut peer| peer.close(Close::normal()));
                }
            }
        }
    }
}

/// The client's side. It starts the worker when it is connected, so that no value is lost.
struct Printer {
    worker: Option<(Sender<u32>, CancelService)>,
}

impl Protocol for Printer {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        if let Some((values, wake)) = self.worker.take() {
            thread::spawn(move || work(values, &wake));
        }
        Ok(())
    }

    fn on_message(&mut self, _: &mut Wsi<'_>, _: &mut (), value: Message<'_>) -> Result<(), Close> {
        println!("{value:?}");
        Ok(())
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, _: WsiId, _: (), cause: &CloseCause) {
        println!("{cause}");
        cx.shutdown(Duration::from_secs(1));
    }

    fn on_connect_error(&mut self, cx: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        eprintln!("{error}");
        cx.shutdown(Duration::ZERO);
    }
}

fn work(values: Sender<u32>, wake: &CancelService) {
    for value in 1..=5 {
        thread::sleep(Duration::from_millis(20));
        if values.send(value).is_err() {
            return;
        }
        wake.cancel_service();
    }
    drop(values);
    wake.cancel_service();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sender, values) = channel();
    let mut context = Context::new(ContextConfig::new())?;
    let worker = Some((sender, context.cancel_service_handle()));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let server = VhostConfig::new("localhost")
        .listen(address)
        .protocol("feed", Feed { values });
    let server = context.create_vhost(server)?;
    let client = VhostConfig::new("client").protocol("feed", Printer { worker });
    let client = context.create_vhost(client)?;
    let port = context.listen_addrs(server)[0].port();
    context.client_connect(client, ClientConnectInfo::new("127.0.0.1", port)?)?;
    context.run()?;
    Ok(())
}
