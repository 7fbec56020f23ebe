//! Webhooks in the storm: a hook that asks the other context, and the endpoint that answers at
//! once, late, wrongly or never. What comes of a request has to be what was said about it.

use std::time::Duration;

use wsloop::hook::{Attributes, OnFailure, Webhook};
use wsloop::tls::ClientTls;
use wsloop::{
    Cx, ExchangeId, ExchangeOutcome, HookConfig, HookHandle, Http, HttpFailure, HttpHandler,
    HttpRequest, PoolConfig, Response, RetryPolicy, TimerTag,
};

use super::model::{Model, Node, Shared, Victim};
use super::tricks::{self, panic_now, wants_panic};
use crate::simpki::Pki;

/// What the endpoint says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    Deny,
    Next,
}

/// What a hook is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nobody comes in without a word of the endpoint.
    Strict,
    /// Others are asked first, or who could not be asked about comes in.
    Loose,
}

/// A hook that asks one of the contexts.
pub(crate) fn webhook(model: &mut Model, node: Node) -> (HookConfig, HookHandle<Webhook>, Trust) {
    let gentle = model.gentle;
    let rng = &mut model.rng;
    let whom = if rng.once_in(4) { node } else { 1 - node };
    let secure = model.tls && rng.once_in(3);
    let scheme = if secure { "https" } else { "http" };
    let mut webhook = Webhook::new(&format!("{scheme}://n{whom}.test/judge")).unwrap();
    if secure {
        webhook = webhook.client_tls(ClientTls::new(Pki::get().roots()));
    }
    if rng.once_in(2) {
        webhook = webhook.retry(again());
    }
    if rng.once_in(4) {
        webhook = webhook.cache(rng.pick(&[0, 1, 3]), 2000);
    }
    // Nothing is late or too much when nobody does harm.
    webhook = webhook.pool(match gentle {
        true => PoolConfig::new().waiting(1000).queue_timeout(LONG),
        false => tricks::pool(),
    });
    let failed = match rng.once_in(3) {
        true => OnFailure::Next,
        false => OnFailure::Refuse,
    };
    let trust = match failed {
        OnFailure::Refuse => Trust::Strict,
        _ => Trust::Loose,
    };
    let within = if gentle { LONG } else { Duration::from_secs(1) };
    let (hook, handle) = HookConfig::with_handle("judge", webhook);
    (hook.on_failure(failed).deadline(within), handle, trust)
}

fn again() -> RetryPolicy {
    RetryPolicy::builder()
        .delays([Duration::from_millis(150)])
        .conceal_count(2)
        .build()
        .unwrap()
}

/// A request came in: what is known about it has to fit, unless nobody strict was asked.
pub(crate) fn check_admitted(
    model: &Model,
    trust: Option<Trust>,
    query: Option<&str>,
    said: &Attributes,
) {
    let (Some(trust), Some(tag)) = (trust, query.and_then(tag)) else {
        return;
    };
    let verdict = model.verdicts_of_judges.get(&tag).copied();
    let told = said.get("tag").map(|told| told.parse().unwrap());
    assert!(told.is_none() || told == Some(tag), "{told:?} for {tag}");
    match (trust, verdict) {
        (Trust::Strict, Some(Verdict::Allow)) => assert_eq!(told, Some(tag), "not its answer"),
        (Trust::Strict, Some(Verdict::Next)) | (Trust::Loose, _) => {}
        (Trust::Strict, other) => panic!("{tag} came in: {other:?}"),
    }
}

/// The number in a query or a question that tells a request from all others.
fn tag(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("w=")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The endpoint.
pub(crate) struct Judge {
    pub(crate) node: Node,
    pub(crate) shared: Shared,
}

/// A question.
#[derive(Default)]
pub(crate) struct Hearing {
    question: Vec<u8>,
    answer: Option<Response>,
}

impl Judge {
    fn answer(&self, http: &mut Http<'_>, hearing: &mut Hearing) -> Result<(), HttpFailure> {
        let question = std::str::from_utf8(&hearing.question).unwrap();
        let whole = question.starts_with("{\"purpose\":\"") && question.ends_with('}');
        assert!(whole, "{question}");
        let mut model = self.shared.lock();
        let tag = tag(question);
        let verdict = model.judge(tag);
        model.note(format!("{} says {verdict:?} about {tag:?}", self.node));
        if wants_panic(&mut model) {
            panic_now(model, Victim::Exchange(self.node, http.id()));
        }
        let response = response(verdict, tag);
        let response = match model.rng.once_in(3) {
            true => response.header("Cache-Control", "max-age=3").unwrap(),
            false => response,
        };
        // The last questions come when nobody does anything any more.
        let late = match (model.budget, model.gentle) {
            (0, true) => 0,
            (_, true) => 1,
            (_, false) => 6,
        };
        let how = model.rng.below(4 + late);
        let millis = model.rng.pick(&[10, 40]) * if how == 5 { 30 } else { 1 };
        drop(model);
        match how {
            4 | 5 => {
                hearing.answer = Some(response);
                http.set_timer(Duration::from_millis(millis), TimerTag(0));
            }
            6 => drop(http.respond(Response::json(503, ""))?),
            7 => drop(http.respond(Response::json(200, "{\"result\":\"may"))?),
            8 => http.abort(),
            // Lost.
            9 => {}
            _ => drop(http.respond(response)?),
        }
        Ok(())
    }
}

fn response(verdict: Verdict, tag: Option<u64>) -> Response {
    match (verdict, tag) {
        (Verdict::Allow, Some(tag)) => Response::json(
            200,
            format!("{{\"result\":\"allow\",\"attributes\":{{\"tag\":\"{tag}\"}}}}"),
        ),
        (Verdict::Allow, None) => Response::json(200, r#"{"result":"allow"}"#),
        (Verdict::Deny, _) => Response::json(200, r#"{"result":"deny","status":402}"#),
        (Verdict::Next, _) => Response::json(200, r#"{"result":"next"}"#),
    }
}

impl HttpHandler for Judge {
    type Exchange = Hearing;

    fn on_request(
        &mut self,
        http: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Hearing, HttpFailure> {
        assert_eq!(request.method(), "POST");
        let mut model = self.shared.lock();
        if wants_panic(&mut model) {
            panic_now(model, Victim::Nobody);
        }
        let new = model.hearings.insert((self.node, http.id()));
        assert!(new, "{} {:?}: an id is given once", self.node, http.id());
        Ok(Hearing::default())
    }

    fn on_body(
        &mut self,
        _: &mut Http<'_>,
        hearing: &mut Hearing,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        hearing.question.extend_from_slice(data);
        Ok(())
    }

    fn on_body_end(
        &mut self,
        http: &mut Http<'_>,
        hearing: &mut Hearing,
    ) -> Result<(), HttpFailure> {
        let heard = (self.node, http.id());
        assert!(self.shared.lock().hearings.contains(&heard), "{heard:?}");
        self.answer(http, hearing)
    }

    fn on_timer(
        &mut self,
        http: &mut Http<'_>,
        hearing: &mut Hearing,
        _: TimerTag,
    ) -> Result<(), HttpFailure> {
        let answer = hearing.answer.take().expect("it was set for an answer");
        http.respond(answer)?;
        Ok(())
    }

    fn on_done(&mut self, cx: &mut Cx<'_>, id: ExchangeId, _: Hearing, outcome: &ExchangeOutcome) {
        let node = self.node;
        let mut model = self.shared.lock();
        model.note(format!("{node} {id:?} heard: {outcome:?}"));
        let known = model.hearings.remove(&(node, id));
        assert!(known, "{node} {id:?}: the end of no question");
        if model.spend() {
            drop(model);
            tricks::from_anywhere(&self.shared, node, cx);
        }
    }

    fn on_free_timer(&mut self, cx: &mut Cx<'_>, tag: TimerTag) {
        let now = cx.now();
        self.shared.lock().timer_fired(self.node, tag.0, None, now);
    }
}

const LONG: Duration = Duration::from_secs(1000);
