//! Echo on fastwebsockets and hyper: PORT [--tls CERT KEY].

use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

fn main() {
    wsloop_peers::serve(connection, connection);
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let service = service_fn(|mut request: Request<Incoming>| async move {
        let (response, upgraded) = upgrade::upgrade(&mut request)?;
        tokio::task::spawn_local(async move { drop(echo(upgraded).await) });
        Ok::<_, WebSocketError>(response)
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    drop(served.with_upgrades().await);
}

async fn echo(upgraded: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = upgraded.await?;
    socket.set_max_message_size(wsloop_peers::MESSAGE_MAX);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
