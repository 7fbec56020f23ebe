//! Requests over HTTPS through a pool of connections, with an authority and a certificate of one's
//! own.
//!
//!     cargo run --example https_client [--ca PEM] [--cert PEM --key PEM] [--method M]
//!         [--body TEXT | --body-file PATH] [--chunked] [--output PATH]
//!         [--times N] [--connections N] [--follow] [--quiet] URL
//!
//! `--ca` is whose servers are good, for `https`; `--cert` and `--key` are shown to servers that
//! ask. With `--chunked` the body is sent in pieces, with `--output` the response's body goes into
//! a file as it comes. The request is made `--times` times, over at most `--connections`
//! connections; the status is 1 if one of them gave no response. At the end the statistics of the
//! pool are told.
//!
//! Without arguments it shows itself: an endpoint in the same process that demands certificates is
//! asked 100 times over 4 connections, and then the certificate is replaced.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "support/args.rs"]
mod args;
#[path = "support/pki.rs"]
mod pki;

use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::{args::Args, pki::Pki};
use bytes::Bytes;
use wsloop::tls::{ClientAuth, ClientTls, ClientTrust, Identity, Roots, ServerTls};
use wsloop::{
    Context, ContextConfig, Cx, FetchAbort, FetchError, FetchId, FetchInfo, Fetched,
    HttpClientHandle, HttpClientHandler, ListenConfig, Method, Mount, PlaintextPolicy, PoolConfig,
    RedirectPolicy, Response, VhostConfig, VhostId,
};

/// Sends the bodies of requests that are chunked, counts what comes of the requests, and shows the
/// bodies of the responses.
#[derive(Default)]
struct Answers {
    quiet: bool,
    /// What is sent in pieces, and what is left of it by request.
    body: Bytes,
    rest: HashMap<FetchId, Bytes>,
    output: Option<File>,
    /// Why the output could not be written.
    unwritten: Option<io::Error>,
    done: usize,
    last: String,
    error: Option<FetchError>,
}

impl HttpClientHandler for Answers {
    fn on_writable(&mut self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        let rest = self.rest.entry(id).or_insert_with(|| self.body.clone());
        let piece = rest.split_to(rest.len().min(PIECE));
        // What cannot be sent any more is no news: `on_done` tells what became of the request.
        let _ = cx.fetch_write(id, &piece);
        let _ = if rest.is_empty() {
            cx.fetch_finish(id)
        } else {
            cx.request_fetch_writable(id)
        };
        Ok(())
    }

    fn on_body(&mut self, _: &mut Cx<'_>, _: FetchId, data: &[u8]) -> Result<(), FetchAbort> {
        let file = self.output.as_mut().ok_or(FetchAbort)?;
        file.write_all(data).map_err(|error| {
            self.unwritten = Some(error);
            FetchAbort
        })
    }

    fn on_done(&mut self, _: &mut Cx<'_>, id: FetchId, outcome: Result<Fetched, FetchError>) {
        self.done += 1;
        self.rest.remove(&id);
        match outcome {
            Ok(response) => {
                self.last = String::from_utf8_lossy(&response.body).into_owned();
                if !self.quiet {
                    println!("{} {}", response.status, response.url);
                    match self.last.trim_end_matches('\n') {
                        "" => {}
                        text => println!("{text}"),
                    }
                }
            }
            Err(error) => self.error = Some(error),
        }
    }
}

fn main() -> ExitCode {
    args::exit("https_client", run(Args::new()))
}

fn run(mut args: Args) -> Result<(), Box<dyn Error>> {
    if args.is_empty() {
        return show();
    }
    let [follow, quiet, chunked] = ["--follow", "--quiet", "--chunked"].map(|s| args.switch(s));
    let [ca, cert, key] = args.values::<PathBuf, 3>(["--ca", "--cert", "--key"])?;
    let [method, body] = args.values::<String, 2>(["--method", "--body"])?;
    let [body_file, output] = args.values::<PathBuf, 2>(["--body-file", "--output"])?;
    let [times, connections] = args.values::<String, 2>(["--times", "--connections"])?;
    let url = args.word()?.ok_or("a URL is missing")?;
    let tls = match (ca, cert, key) {
        (None, None, None) if !url.starts_with("https:") => None,
        (None, ..) => return Err("--ca PEM is missing: whose servers are trusted".into()),
        (Some(ca), None, None) => Some(ClientTls::new(Roots::from_pem_file(ca)?)),
        (Some(ca), Some(cert), Some(key)) => {
            let tls = ClientTls::new(Roots::from_pem_file(ca)?);
            Some(tls.identity(Identity::from_pem_files(cert, key)?))
        }
        _ => return Err("--cert and --key go together".into()),
    };
    let method = Method::new(method.as_deref().unwrap_or("GET"))?;
    let mut info = FetchInfo::new(method, &url)?;
    let mut answers = Answers {
        quiet,
        ..Answers::default()
    };
    match (body, body_file) {
        (Some(text), _) => answers.body = text.into(),
        (None, Some(path)) => answers.body = at(&path, fs::read(&path))?.into(),
        (None, None) => {}
    }
    if chunked {
        info = info.streamed_body(None);
    } else if !answers.body.is_empty() {
        info = info.body(answers.body.clone());
    }
    if let Some(path) = output {
        answers.output = Some(at(&path, File::create(&path))?);
        info = info.streamed();
    }
    if follow {
        info = info.redirects(RedirectPolicy::new());
    }
    let connections = args::number("--connections", connections, 1)?;
    let mut client = Client::new(tls, connections, answers)?;
    client.ask(&info, args::number("--times", times, 1)?)?;
    client.tell_pool()
}

/// An error that names the file.
fn at<T>(path: &Path, outcome: io::Result<T>) -> Result<T, String> {
    outcome.map_err(|error| format!("{}: {error}", path.display()))
}

/// A context with a vhost for clients.
struct Client {
    context: Context,
    vhost: VhostId,
    answers: HttpClientHandle<Answers>,
}

impl Client {
    fn new(
        tls: Option<ClientTls>,
        connections: usize,
        answers: Answers,
    ) -> Result<Self, Box<dyn Error>> {
        let mut context = Context::new(ContextConfig::new())?;
        let pool = PoolConfig::new().per_origin(connections).waiting(100_000);
        let mut config = VhostConfig::new("client").http_pool(pool);
        if let Some(tls) = tls {
            config = config.client_tls(tls);
        }
        let answers = config.add_http_client(answers);
        Ok(Self {
            vhost: context.create_vhost(config)?,
            context,
            answers,
        })
    }

    /// Makes the request so many times at once, and waits for all that comes of it.
    fn ask(&mut self, info: &FetchInfo, times: usize) -> Result<(), Box<dyn Error>> {
        let answers = self.context.http_client(self.answers);
        let before = answers.map_or(0, |answers| answers.done);
        for _ in 0..times {
            self.context.fetch(self.vhost, info.clone())?;
        }
        loop {
            let answers = self.context.http_client(self.answers).ok_or("no handler")?;
            if answers.done == before + times {
                if let Some(error) = answers.unwritten.take() {
                    return Err(format!("--output: {error}").into());
                }
                return answers
                    .error
                    .take()
                    .map_or(Ok(()), |error| Err(error.into()));
            }
            self.context.service(None)?;
        }
    }

    fn tell_pool(&self) -> Result<(), Box<dyn Error>> {
        let pool = self.context.http_pool_metrics(self.vhost)?;
        println!(
            "{} connections opened, used again {} times; {} open, {} of them idle",
            pool.opened, pool.reused, pool.open, pool.idle
        );
        Ok(())
    }
}

fn show() -> Result<(), Box<dyn Error>> {
    let pki = Pki::new("https_client")?;
    let identity = |name: &str| -> Result<Identity, Box<dyn Error>> {
        let (cert, key) = pki.client(name)?;
        Ok(Identity::from_pem_files(cert, key)?)
    };
    let tls = ClientTls::new(Roots::from_pem_file(pki.ca())?).identity(identity("anna")?);
    let answers = Answers {
        quiet: true,
        ..Answers::default()
    };
    let mut client = Client::new(Some(tls), 4, answers)?;
    let address = endpoint(&mut client.context, &pki)?;
    let info = FetchInfo::get(&format!("https://localhost:{}/who", address.port()))?;
    // The name is in the certificate; looking it up is not what this is about.
    let info = info.addresses(vec![address])?;
    for name in ["anna", "bert"] {
        if name == "bert" {
            println!("replacing the certificate");
            client
                .context
                .set_client_identity(client.vhost, identity(name)?)?;
        }
        client.ask(&info, 100)?;
        let answers = client.context.http_client(client.answers);
        let last = answers.map_or("", |answers| answers.last.trim_end());
        println!("100 responses, the last one: {last}");
        client.tell_pool()?;
    }
    Ok(())
}

/// A vhost in the same context that demands a certificate and says whose it was.
fn endpoint(context: &mut Context, pki: &Pki) -> Result<SocketAddr, Box<dyn Error>> {
    let (cert, key) = pki.server("server", &["localhost"])?;
    let trust = ClientTrust::new(Roots::from_pem_file(pki.ca())?);
    let tls = ServerTls::new(Identity::from_pem_files(cert, key)?);
    let listen = ListenConfig::new("127.0.0.1:0".parse()?).tls(PlaintextPolicy::Reject);
    let config = VhostConfig::new("localhost")
        .listen(listen)
        .server_tls(tls.client_auth(ClientAuth::Required(trust)))
        .mount(Mount::call("/who", |request| {
            let peer = request.peer_identity();
            let name = peer.as_ref().and_then(|peer| peer.common_name());
            Response::text(200, format!("you are {}\n", name.unwrap_or("nobody")))
        }));
    let vhost = context.create_vhost(config)?;
    let addresses = context.listen_addrs(vhost);
    Ok(*addresses.first().ok_or("no listener")?)
}

/// How much of a body that is sent in pieces is given to the loop at once.
const PIECE: usize = 64 * 1024;
