//! Echo on tokio-tungstenite: PORT [--tls CERT KEY].

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

fn main() {
    wsloop_peers::serve(
        |stream| async move { drop(echo(stream).await) },
        |stream| async move { drop(echo(stream).await) },
    );
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
) -> Result<(), Box<dyn std::error::Error>> {
    // With its default of 128 KiB, zeroed before every read, it would be ten times slower.
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .max_message_size(Some(wsloop_peers::MESSAGE_MAX))
        .max_frame_size(Some(wsloop_peers::MESSAGE_MAX));
    let socket = accept_async_with_config(stream, Some(config)).await?;
    let (mut write, mut read) = socket.split();
    while let Some(message) = read.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            write.feed(message).await?;
        }
        // Flush when no other message is here.
        loop {
            let next = std::future::poll_fn(|cx| {
                use futures_util::Stream;
                std::task::Poll::Ready(std::pin::Pin::new(&mut read).poll_next(cx))
            });
            match next.await {
                std::task::Poll::Ready(Some(message)) => {
                    let message = message?;
                    if message.is_text() || message.is_binary() {
                        write.feed(message).await?;
                    }
                }
                std::task::Poll::Ready(None) => return Ok(()),
                std::task::Poll::Pending => break,
            }
        }
        write.flush().await?;
    }
    Ok(())
}
