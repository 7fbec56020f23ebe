//! What runs in the contexts, and writes down every end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use wsloop::{
    Close, CloseCause, ConnectError, ContextObserver, Cx, Established, ExchangeId, ExchangeOutcome,
    FetchError, FetchId, Fetched, HookError, Http, HttpClientHandler, HttpFailure, HttpHandler,
    HttpRequest, ListenerTrouble, Message, Protocol, Response, ServerRefusal, VhostId, Wsi, WsiId,
};

use super::rack::with_causes;

/// What began, what ended, and what else went wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(Arc<Mutex<Tally>>);

#[derive(Debug, Default)]
struct Tally {
    begun: BTreeMap<&'static str, usize>,
    ended: BTreeMap<&'static str, usize>,
    ends: Vec<String>,
    troubles: Vec<String>,
}

impl Told {
    pub(crate) fn begun(&self, what: &'static str) {
        *self.0.lock().unwrap().begun.entry(what).or_default() += 1;
    }

    fn ended(&self, what: &'static str, how: &str) {
        let mut tally = self.0.lock().unwrap();
        *tally.ended.entry(what).or_default() += 1;
        tally.ends.push(format!("{what}: {how}"));
    }

    pub(crate) fn trouble(&self, what: &str) {
        self.0.lock().unwrap().troubles.push(what.to_owned());
    }

    pub(crate) fn ends(&self) -> Vec<String> {
        self.0.lock().unwrap().ends.clone()
    }

    pub(crate) fn troubles(&self) -> Vec<String> {
        self.0.lock().unwrap().troubles.clone()
    }

    pub(crate) fn check_all_ended(&self) {
        let tally = self.0.lock().unwrap();
        assert_eq!(tally.begun, tally.ended, "{tally:#?}");
    }
}

/// Either end of an echo.
pub(crate) struct Speaker {
    told: Told,
    server: bool,
    heard: usize,
}

impl Speaker {
    pub(crate) fn server(told: &Told) -> Self {
        Self {
            told: told.clone(),
            server: true,
            heard: 0,
        }
    }

    pub(crate) fn client(told: &Told) -> Self {
        Self {
            server: false,
            ..Self::server(told)
        }
    }
}

impl Protocol for Speaker {
    type Session = ();

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        if self.server {
            self.told.begun("session");
        } else {
            wsi.send_text("hello, hello, hello, hello, hello, hello, hello")?;
            wsi.send_binary(&[7; 20_000])?;
            wsi.send_ping(b"?")?;
        }
        Ok(())
    }

    fn on_message(
        &mut self,
        wsi: &mut Wsi<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Close> {
        if self.server {
            wsi.send(message)?;
            return Ok(());
        }
        self.heard += 1;
        match self.heard {
            2 => Err(Close::normal()),
            _ => Ok(()),
        }
    }

    fn on_closed(&mut self, _: &mut Cx<'_>, _: WsiId, (): (), cause: &CloseCause) {
        let what = if self.server { "session" } else { "connection" };
        self.told.ended(what, &cause.to_string());
    }

    fn on_connect_error(&mut self, _: &mut Cx<'_>, _: WsiId, error: &ConnectError) {
        self.told.ended("connection", &with_causes(error));
    }
}

/// Answers requests, webhooks' included.
pub(crate) struct Answers {
    told: Told,
    body: &'static str,
    kind: &'static str,
}

impl Answers {
    pub(crate) fn new(told: &Told) -> Self {
        Self {
            told: told.clone(),
            body: "an answer",
            kind: "text/plain",
        }
    }

    pub(crate) fn allowing(told: &Told) -> Self {
        Self {
            body: r#"{"result": "allow"}"#,
            kind: "application/json",
            ..Self::new(told)
        }
    }
}

impl HttpHandler for Answers {
    type Exchange = ();

    fn on_request(&mut self, _: &mut Http<'_>, _: &HttpRequest<'_>) -> Result<(), HttpFailure> {
        self.told.begun("exchange");
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, (): &mut ()) -> Result<(), HttpFailure> {
        let response = Response::new(200).header("Content-Type", self.kind);
        http.respond(response.unwrap().body(self.body))?;
        Ok(())
    }

    fn on_done(&mut self, _: &mut Cx<'_>, _: ExchangeId, (): (), outcome: &ExchangeOutcome) {
        self.told.ended("exchange", &format!("{outcome:?}"));
        if let ExchangeOutcome::Io(error) = outcome {
            self.told.trouble(&error.to_string());
        }
    }
}

/// Is told what became of requests.
pub(crate) struct Asker(pub(crate) Told);

impl HttpClientHandler for Asker {
    fn on_done(&mut self, _: &mut Cx<'_>, _: FetchId, outcome: Result<Fetched, FetchError>) {
        let how = match outcome {
            Ok(fetched) => format!("{} with {}", fetched.status, fetched.body.len()),
            Err(error) => with_causes(&error),
        };
        self.0.ended("fetch", &how);
    }
}

/// Is told what nobody owns.
pub(crate) struct Watcher(pub(crate) Told);

impl ContextObserver for Watcher {
    fn on_refused(&mut self, _: &mut Cx<'_>, refusal: &ServerRefusal) {
        self.0.trouble(&refusal.reason.to_string());
    }

    fn on_listener_trouble(&mut self, _: &mut Cx<'_>, trouble: &ListenerTrouble) {
        self.0.trouble(&trouble.error.to_string());
    }

    fn on_hook_error(&mut self, _: &mut Cx<'_>, _: VhostId, _: &str, error: &HookError) {
        self.0.trouble(&with_causes(error));
    }
}
