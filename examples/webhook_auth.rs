//! A WebSocket server whose connections are decided by a chain of hooks: an allow-list of
//! addresses, then an HTTPS endpoint that is asked, then a refusal.
//!
//!     cargo run --example webhook_auth [--local PREFIX] [--url URL --ca PEM [--cert PEM --key PEM]]
//!         [ADDR:PORT]
//!
//! It listens on 127.0.0.1:7681 unless told otherwise. Clients from `--local` (10.0.0.0/8) are
//! allowed without being asked about. About the others the endpoint at `--url` is asked; without
//! one there is one in the same process, behind mutual TLS with throw-away certificates. That one
//! allows whoever says `?user=NAME&token=sesame`, denies whoever says another token, and has no
//! opinion about the rest, which are refused:
//!
//!     cargo run --example echo_client ws://127.0.0.1:7681/?user=ada\&token=sesame

#[path = "support/args.rs"]
mod args;
#[path = "support/pki.rs"]
mod pki;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use self::{args::Args, pki::Pki};
use wsloop::hook::{AllowPeers, DenyAll, Webhook};
use wsloop::tls::{ClientAuth, ClientTrust, Identity, Roots, ServerTls};
use wsloop::{
    Close, Context, ContextConfig, ContextObserver, Cx, Established, HookChain, HookConfig,
    HookError, Http, HttpFailure, HttpHandler, HttpRequest, ListenConfig, Message, Mount,
    PlaintextPolicy, PoolConfig, Protocol, Refuse, Response, RetryPolicy, ServerRefusal,
    VhostConfig, VhostId, Wsi,
};

/// Greets by the name that the endpoint has given, and echoes.
struct Echo;

impl Protocol for Echo {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        let user = wsi.attributes().get("user").unwrap_or("neighbour");
        let greeting = format!("hello {user}");
        args::say(&greeting);
        wsi.send_text(&greeting)?;
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
}

/// Says who was refused, and what went wrong with the hooks.
struct Observer;

impl ContextObserver for Observer {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        args::say(format_args!("{}: {}", refusal.peer, refusal.reason));
    }

    fn on_hook_error(&mut self, _: &mut Cx<'_>, _: VhostId, hook: &str, error: &HookError) {
        args::say(format_args!("{hook}: {error}"));
    }
}

/// The endpoint: reads a question, and answers it.
struct Endpoint;

impl HttpHandler for Endpoint {
    /// The question, as far as it has come.
    type Exchange = Vec<u8>;

    fn on_request(
        &mut self,
        _: &mut Http<'_>,
        _: &HttpRequest<'_>,
    ) -> Result<Vec<u8>, HttpFailure> {
        Ok(Vec::new())
    }

    fn on_body(
        &mut self,
        _: &mut Http<'_>,
        question: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        question.extend_from_slice(data);
        Ok(())
    }

    fn on_body_end(
        &mut self,
        http: &mut Http<'_>,
        question: &mut Vec<u8>,
    ) -> Result<(), HttpFailure> {
        let question = String::from_utf8_lossy(question);
        args::say(format_args!("asked {question}"));
        let answer = match (value(&question, "user"), value(&question, "token")) {
            (Some(user), Some("sesame")) => {
                format!(r#"{{"result":"allow","attributes":{{"user":"{user}"}}}}"#)
            }
            (_, Some(_)) => r#"{"result":"deny","status":401,"body":"wrong token\n"}"#.to_owned(),
            (_, None) => r#"{"result":"next"}"#.to_owned(),
        };
        // For a minute nobody has to ask the same again.
        let response = Response::json(200, answer).header("Cache-Control", "max-age=60")?;
        http.respond(response)?;
        Ok(())
    }
}

/// What the query says, if it is made of letters and digits. A real endpoint reads the JSON.
fn value<'q>(question: &'q str, name: &str) -> Option<&'q str> {
    let (_, query) = question.split_once("\"query\":\"")?;
    let (query, _) = query.split_once('"')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(known, _)| *known == name)?;
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then_some(value)
}

fn main() -> ExitCode {
    args::exit("webhook_auth", run(Args::new()))
}

fn run(mut args: Args) -> Result<(), Box<dyn Error>> {
    let [local, url] = args.values::<String, 2>(["--local", "--url"])?;
    let [ca, cert, key] = args.values::<PathBuf, 3>(["--ca", "--cert", "--key"])?;
    let address = args.address("127.0.0.1:7681")?;
    let mut context = Context::new(ContextConfig::new().observer(Observer))?;
    let pki = Pki::new("webhook_auth")?;
    let mut webhook = match url {
        None => start_endpoint(&mut context, &pki)?,
        Some(url) => Webhook::new(&url)?,
    };
    if let Some(ca) = ca {
        webhook = webhook.cafile(ca);
    }
    match (cert, key) {
        (None, None) => {}
        (Some(cert), Some(key)) => webhook = webhook.certfile(cert).keyfile(key),
        _ => return Err("--cert and --key go together".into()),
    }
    let retry = RetryPolicy::builder().delays([Duration::from_millis(500)]);
    let webhook = webhook
        .include_header("Authorization")
        .pool(PoolConfig::new().per_origin(8))
        .retry(retry.conceal_count(4).build()?);
    let local = local.unwrap_or_else(|| "10.0.0.0/8".to_owned());
    let chain = HookChain::new()
        .hook("local", AllowPeers::new([local])?)
        .with(HookConfig::new("webhook", webhook).deadline(Duration::from_secs(5)))
        .hook("deny", DenyAll::new(Refuse::new(403).body("not for you\n")));
    let config = VhostConfig::new("localhost")
        .listen(address)
        .protocol("echo", Echo)
        .hooks(chain);
    let vhost = context.create_vhost(config)?;
    for address in context.listen_addrs(vhost) {
        args::say(format_args!("listening on ws://{address}"));
    }
    context.run()?;
    Ok(())
}

/// An endpoint in the same context that demands a certificate, and the webhook that asks it.
fn start_endpoint(context: &mut Context, pki: &Pki) -> Result<Webhook, Box<dyn Error>> {
    let (cert, key) = pki.server("server", &["localhost"])?;
    let trust = ClientTrust::new(Roots::from_pem_file(pki.ca())?);
    let tls = ServerTls::new(Identity::from_pem_files(cert, key)?);
    let listen = ListenConfig::new("127.0.0.1:0".parse()?).tls(PlaintextPolicy::Reject);
    let config = VhostConfig::new("localhost")
        .listen(listen)
        .server_tls(tls.client_auth(ClientAuth::Required(trust)))
        .mount(Mount::handler("/ask", Endpoint));
    let vhost = context.create_vhost(config)?;
    let addresses = context.listen_addrs(vhost);
    let port = addresses.first().ok_or("no listener")?.port();
    let (cert, key) = pki.client("webhook")?;
    let webhook = Webhook::new(&format!("https://localhost:{port}/ask"))?;
    // The name is in the certificate; looking it up is not what this is about.
    let webhook = webhook.addresses(addresses)?;
    Ok(webhook.cafile(pki.ca()).certfile(cert).keyfile(key))
}
