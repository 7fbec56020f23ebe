//! Who connects and says nothing, and who connects when no descriptor is left.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Scene, WELL_EVERY, fared, held, spent};
use crate::Outcome;
use crate::peer::{connect_all, open};

/// So many that never say a word; then a fifth as many that leave after their ClientHello.
pub(crate) fn silent(count: usize, settings: &[&str]) -> Outcome {
    let scene = Scene::set(settings)?;
    let address = scene.server.address;
    attack("silent", scene, count, || Ok(connect_all(address, count)?))?;
    let Some(hello) = hello()? else { return Ok(()) };
    let scene = Scene::set(settings)?;
    let secure = scene.server.secure.ok_or("it speaks no TLS")?;
    let count = count / 5 * 2;
    attack("begun in TLS", scene, count, || {
        let mut streams = connect_all(secure, count)?;
        for stream in &mut streams {
            stream.write_all(&hello)?;
        }
        Ok(streams)
    })
}

fn attack(
    what: &str,
    scene: Scene,
    count: usize,
    begin_them: impl FnOnce() -> Result<Vec<TcpStream>, Box<dyn std::error::Error>>,
) -> Outcome {
    let Scene {
        mut server,
        crowd,
        quiet,
        idle,
    } = scene;
    let watch = crowd.watch(WELL_EVERY);
    let begin = Instant::now();
    let streams = begin_them()?;
    println!(
        "{count} {what} after {:.2} s",
        begin.elapsed().as_secs_f64()
    );
    let mut most = server.figures()?;
    while server.figures()?.ended < idle.ended + count {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.figures()?;
        if now.connections > most.connections {
            most = now;
        }
    }
    let last = server.figures()?;
    let at_once = most.connections - idle.connections;
    println!(
        "{at_once} at once at most, the last ended at {:.2} s",
        begin.elapsed().as_secs_f64()
    );
    held(what, at_once, &idle, &most);
    spent("all of it", &idle, &last, begin);
    drop(streams);
    let (during, _crowd) = watch.end()?;
    fared(&quiet, &during);
    Ok(())
}

/// A client's first flight.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn hello() -> Result<Option<Vec<u8>>, Box<dyn std::error::Error>> {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(Some(hello))
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
fn hello() -> Result<Option<Vec<u8>>, Box<dyn std::error::Error>> {
    Ok(None)
}

/// More than the server has descriptors for.
pub(crate) fn descriptors(count: usize, settings: &[&str]) -> Outcome {
    let settings = [settings, &["descriptors=256"]].concat();
    let Scene {
        mut server,
        crowd,
        quiet,
        idle,
    } = Scene::set(&settings)?;
    let watch = crowd.watch(WELL_EVERY);
    let streams = connect_all(server.address, count)?;
    let full = server.until(|now| now.troubles > idle.troubles)?;
    println!(
        "{} connections, {} descriptors: none is left",
        full.connections, full.descriptors
    );
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    let now = server.figures()?;
    spent("without descriptors", &full, &now, begin);
    println!(
        "{} tries to accept that failed",
        now.troubles - full.troubles
    );
    let (during, _crowd) = watch.end()?;
    drop(streams);
    let begin = Instant::now();
    let _next = open(server.address, 0)?;
    println!(
        "served {:.3} s after descriptors came free",
        begin.elapsed().as_secs_f64()
    );
    fared(&quiet, &during);
    Ok(())
}
