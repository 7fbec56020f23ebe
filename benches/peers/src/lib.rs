//! What the servers on tokio have in common.

use std::future::Future;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub const MESSAGE_MAX: usize = 128 * 1024 * 1024;

/// Accepts for ever, on one thread; `PORT [--tls CERT KEY]` are the program's arguments.
pub fn serve<P, T>(plain: fn(TcpStream) -> P, tls: fn(TlsStream<TcpStream>) -> T)
where
    P: Future<Output = ()> + 'static,
    T: Future<Output = ()> + 'static,
{
    let arguments: Vec<String> = std::env::args().collect();
    let port: u16 = arguments[1].parse().expect("a port");
    let acceptor = (arguments.len() > 4).then(|| acceptor(&arguments[3], &arguments[4]));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a free port");
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            stream.set_nodelay(true).expect("a TCP socket");
            match &acceptor {
                None => drop(spawn_local(plain(stream))),
                Some(acceptor) => {
                    let accepting = acceptor.accept(stream);
                    spawn_local(async move {
                        if let Ok(stream) = accepting.await {
                            tls(stream).await;
                        }
                    });
                }
            }
        }
    });
}

fn acceptor(cert: &str, key: &str) -> TlsAcceptor {
    TlsAcceptor::from(server_config(cert, key))
}

/// What every server here speaks TLS with: the defaults of rustls.
pub fn server_config(cert: &str, key: &str) -> Arc<rustls::ServerConfig> {
    let open = |path| std::io::BufReader::new(std::fs::File::open(path).expect("a PEM file"));
    let certs = rustls_pemfile::certs(&mut open(cert)).collect::<Result<_, _>>();
    let key = rustls_pemfile::private_key(&mut open(key))
        .expect("PEM")
        .expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certs.expect("PEM"), key)
        .expect("a pair");
    Arc::new(config)
}
