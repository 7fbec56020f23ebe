//! The HTTP side of it: a handler, a client, a hook, an observer.

use std::sync::MutexGuard;
use std::time::Duration;

use wsloop::http::head::ResponseHead;
use wsloop::{
    BodyLength, ContextObserver, Cx, ExchangeId, ExchangeOutcome, FetchAbort, FetchError, FetchId,
    Fetched, HeaderList, Hook, HookAnswer, HookError, HookRequest, HookRequestId, Http,
    HttpClientHandler, HttpFailure, HttpHandler, HttpRequest, Response, ServerRefusal, TimerTag,
    VhostError, VhostId,
};

use super::judge::{Trust, check_admitted};
use super::model::{Model, Node, Shared, Victim, some_length};
use super::tricks::{self, panic_now, wants_panic};
use super::world::pattern;

/// Answers now, later, in pieces, wrongly or never.
pub(crate) struct Handler {
    pub(crate) node: Node,
    pub(crate) shared: Shared,
    /// How far its vhost goes by what a webhook says.
    pub(crate) trust: Option<Trust>,
}

/// What an exchange is owed.
#[derive(Default)]
pub(crate) struct Owed {
    /// The request is one of the contexts'.
    ours: bool,
    received: usize,
    pieces: usize,
    sent: usize,
}

impl Handler {
    fn begin(&self, http: &mut Http<'_>, owed: &mut Owed) -> Result<(), HttpFailure> {
        let mut model = self.shared.lock();
        let len = some_length(&mut model.rng);
        let choices = if model.gentle { 5 } else { 8 };
        match model.rng.below(choices) {
            0..=2 => {
                http.respond(Response::new(200).body(pattern(0, len)))?;
            }
            3 => {
                owed.pieces = 1 + model.rng.below(4);
                let length = match model.rng.once_in(2) {
                    true => BodyLength::Known((owed.pieces * PIECE) as u64),
                    false => BodyLength::Unknown,
                };
                http.start(200, &HeaderList::new(), length)?;
                http.request_writable();
            }
            4 => {
                let after = Duration::from_millis(50);
                http.set_timer(after, TimerTag(0));
            }
            5 => return Err(HttpFailure::respond(Response::text(503, "no"))),
            6 => http.abort(),
            // Somebody will answer, or nobody.
            _ => {}
        }
        Ok(())
    }
}

impl HttpHandler for Handler {
    type Exchange = Owed;

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Owed, HttpFailure> {
        let (node, id) = (self.node, http.id());
        let mut model = self.shared.lock();
        model.note(format!(
            "{node} {id:?} {} {}",
            request.method(),
            request.path()
        ));
        check_admitted(&model, self.trust, request.query(), request.attributes());
        if wants_panic(&mut model) {
            panic_now(model, Victim::Nobody);
        }
        drop(model);
        let mut owed = Owed {
            ours: request.header("x-ours").is_some(),
            ..Owed::default()
        };
        self.begin(http, &mut owed)?;
        let mut model = self.shared.lock();
        let before = model.exchanges.insert((node, id), 0);
        assert!(before.is_none(), "{node} {id:?}: an id is given once");
        Ok(owed)
    }

    fn on_body(
        &mut self,
        http: &mut Http<'_>,
        owed: &mut Owed,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        let (node, id) = (self.node, http.id());
        let mut model = self.shared.lock();
        assert!(model.exchanges.contains_key(&(node, id)), "{node} {id:?}");
        if owed.ours {
            assert_eq!(data, pattern(owed.received, data.len()), "{node} {id:?}");
        }
        owed.received += data.len();
        if wants_panic(&mut model) {
            panic_now(model, Victim::Exchange(node, id));
        }
        if model.spend() {
            drop(model);
            tricks::from_anywhere(&self.shared, node, http.cx());
        }
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, _: &mut Owed) -> Result<(), HttpFailure> {
        let model = self.shared.lock();
        assert!(model.exchanges.contains_key(&(self.node, http.id())));
        Ok(())
    }

    fn on_writable(&mut self, http: &mut Http<'_>, owed: &mut Owed) -> Result<(), HttpFailure> {
        let (node, id) = (self.node, http.id());
        let mut model = self.shared.lock();
        assert!(model.exchanges.contains_key(&(node, id)), "{node} {id:?}");
        if wants_panic(&mut model) {
            panic_now(model, Victim::Exchange(node, id));
        }
        if owed.pieces == 0 {
            return Ok(());
        }
        http.write(&pattern(owed.sent, PIECE))?;
        owed.sent += PIECE;
        owed.pieces -= 1;
        match owed.pieces {
            0 => drop(http.finish()?),
            _ => http.request_writable(),
        }
        Ok(())
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        _: &mut Owed,
        _: TimerTag,
    ) -> Result<(), HttpFailure> {
        http.respond(Response::new(200).body(pattern(0, 100)))?;
        Ok(())
    }

    fn on_done(&mut self, cx: &mut Cx<'_>, id: ExchangeId, _: Owed, outcome: &ExchangeOutcome) {
        let node = self.node;
        let mut model = self.shared.lock();
        model.note(format!("{node} {id:?} done: {outcome:?}"));
        model.exchange_ended(node, id);
        assert!(cx.exchange(id).is_none(), "{node} {id:?} is over");
        go_on(&self.shared, self.node, cx, model);
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        timer_fired(&self.shared, self.node, cx, tag);
    }
}

/// Is told what became of requests.
pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) shared: Shared,
}

impl Client {
    fn act(&self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        let mut model = self.shared.lock();
        if wants_panic(&mut model) {
            panic_now(model, Victim::Fetch(self.node, id));
        }
        if !model.spend() {
            return Ok(());
        }
        let aborts = !model.gentle && model.rng.once_in(20);
        drop(model);
        tricks::from_anywhere(&self.shared, self.node, cx);
        if aborts { Err(FetchAbort) } else { Ok(()) }
    }
}

impl HttpClientHandler for Client {
    fn on_response(
        &mut self,
        cx: &mut Cx<'_>,
        id: FetchId,
        head: &ResponseHead<'_>,
    ) -> Result<(), FetchAbort> {
        let node = self.node;
        let mut model = self.shared.lock();
        model.note(format!("{node} {id:?} {}", head.status()));
        let request = model.fetches.get_mut(&(node, id));
        let request = request.unwrap_or_else(|| panic!("{node} {id:?} is over"));
        assert!(!request.head, "{node} {id:?}: a second head");
        (request.head, request.status) = (true, head.status());
        drop(model);
        self.act(cx, id)
    }

    fn on_body(&mut self, cx: &mut Cx<'_>, id: FetchId, data: &[u8]) -> Result<(), FetchAbort> {
        let node = self.node;
        let mut model = self.shared.lock();
        let request = model.fetches.get_mut(&(node, id));
        let request = request.unwrap_or_else(|| panic!("{node} {id:?} is over"));
        assert!(request.head, "{node} {id:?}: a body without a head");
        if request.ours && request.status == 200 {
            assert_eq!(data, pattern(request.received, data.len()), "{node} {id:?}");
        }
        request.received += data.len();
        drop(model);
        self.act(cx, id)
    }

    fn on_writable(&mut self, cx: &mut Cx<'_>, id: FetchId) -> Result<(), FetchAbort> {
        let known = self.shared.lock().fetches.contains_key(&(self.node, id));
        assert!(known, "{id:?} is over");
        self.act(cx, id)
    }

    fn on_done(&mut self, cx: &mut Cx<'_>, id: FetchId, outcome: Result<Fetched, FetchError>) {
        let node = self.node;
        assert!(cx.cancel_fetch(id).is_err(), "{node} {id:?} is over");
        let mut model = self.shared.lock();
        let shown = match &outcome {
            Ok(fetched) => format!("{} with {}", fetched.status, fetched.body.len()),
            Err(error) => error.to_string(),
        };
        model.note(format!("{node} {id:?} done: {shown}"));
        let request = model.fetch_ended(node, id);
        if let Ok(fetched) = &outcome {
            if request.ours && fetched.status == 200 {
                assert_eq!(
                    fetched.body,
                    pattern(0, fetched.body.len()),
                    "{node} {id:?}"
                );
            }
        }
        go_on(&self.shared, self.node, cx, model);
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        timer_fired(&self.shared, self.node, cx, tag);
    }
}

/// Allows, denies, fails, or takes its time.
pub(crate) struct Doorman {
    pub(crate) node: Node,
    pub(crate) shared: Shared,
}

impl Hook for Doorman {
    fn ask(&mut self, cx: &mut Cx<'_>, request: &HookRequest<'_>) -> Result<HookAnswer, HookError> {
        let (node, id) = (self.node, request.id());
        let mut model = self.shared.lock();
        model.note(format!("{node} is asked {id:?}"));
        if wants_panic(&mut model) {
            panic_now(model, Victim::Nobody);
        }
        let choices = if model.gentle { 2 } else { 9 };
        let answer = match model.rng.below(choices) {
            0..=4 => Ok(HookAnswer::allow()),
            5 => Ok(HookAnswer::Next),
            6 => Ok(HookAnswer::deny(401)),
            7 => Err(HookError::new("asleep")),
            _ => Ok(HookAnswer::Later),
        };
        let acts = model.spend();
        drop(model);
        if acts {
            tricks::from_anywhere(&self.shared, node, cx);
        }
        if matches!(answer, Ok(HookAnswer::Later)) {
            // Nobody waits before that.
            self.shared.lock().questions.push((node, id));
        }
        answer
    }

    fn on_abandoned(&mut self, cx: &mut Cx<'_>, id: HookRequestId) {
        let node = self.node;
        let mut model = self.shared.lock();
        model.note(format!("{node} {id:?} abandoned"));
        let at = model
            .questions
            .iter()
            .position(|known| *known == (node, id));
        assert!(at.is_some(), "{node} {id:?} was answered, or never asked");
        model.questions.remove(at.unwrap());
        let told = cx.answer_hook(id, Ok(HookAnswer::allow()));
        assert!(told.is_err(), "{node} {id:?} is answered after that");
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        timer_fired(&self.shared, self.node, cx, tag);
    }
}

/// Is told what nobody owns.
pub(crate) struct Watcher {
    pub(crate) node: Node,
    pub(crate) shared: Shared,
}

impl Watcher {
    fn act(&self, cx: &mut Cx<'_>, line: String) {
        let mut model = self.shared.lock();
        model.note(line);
        go_on(&self.shared, self.node, cx, model);
    }
}

impl ContextObserver for Watcher {
    fn on_refused(&mut self, cx: &mut Cx<'_>, refusal: &ServerRefusal) {
        self.act(cx, format!("{} refuses: {}", self.node, refusal.reason));
    }

    fn on_vhost_error(&mut self, cx: &mut Cx<'_>, id: VhostId, error: &VhostError) {
        self.act(cx, format!("{} no {id:?}: {error}", self.node));
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        timer_fired(&self.shared, self.node, cx, tag);
    }
}

/// Something is over, or belongs to nobody: panics or does this or that.
fn go_on(shared: &Shared, node: Node, cx: &mut Cx<'_>, mut model: MutexGuard<'_, Model>) {
    if wants_panic(&mut model) {
        panic_now(model, Victim::Nobody);
    }
    if model.spend() {
        drop(model);
        tricks::from_anywhere(shared, node, cx);
    }
}

/// A free-standing timer of whom it may be.
fn timer_fired(shared: &Shared, node: Node, cx: &Cx<'_>, tag: TimerTag) {
    shared.lock().timer_fired(node, tag.0, None, cx.now());
}

/// How long a piece of a response is.
const PIECE: usize = 1500;
