//! The hooks of a vhost at work on one request: who is asked, who is waited for, what comes of it.

use std::time::{Duration, Instant};

use super::{
    ChainSlot, Grant, HookAnswer, HookError, HookPlace, HookPurpose, HookRefusal, HookRequest,
    OnFailure, offered,
};
use crate::conn::Role;
use crate::error::{Deadline, DeadlineStage, NotPending, RefusalReason};
use crate::http::head::{HeadLimits, RequestHead};
use crate::id::{HookRequestId, WsiId};
use crate::inner::{Inner, Owner};
use crate::lift::Lift;
use crate::protocol::Refuse;
use crate::timer::saturating_add;
use crate::wsi::Cx;

/// A request that waits for a hook's answer.
#[derive(Debug)]
pub(crate) struct Asking {
    /// The request head, to be parsed again.
    head: Vec<u8>,
    /// What it was parsed with.
    limits: HeadLimits,
    cursor: Cursor,
    answer: Option<Result<HookAnswer, HookError>>,
}

impl Asking {
    /// A plain request can still be answered when its client sends no more.
    pub(crate) fn is_plain(&self) -> bool {
        self.cursor.purpose == HookPurpose::Http
    }

    /// Takes the answer of the hook that is waited for, once.
    pub(crate) fn answer(
        &mut self,
        number: u32,
        answer: Result<HookAnswer, HookError>,
    ) -> Result<(), NotPending> {
        if self.cursor.number != number || self.answer.is_some() {
            return Err(NotPending);
        }
        // Saying "later" twice is no answer, and buys no time.
        if !matches!(answer, Ok(HookAnswer::Later)) {
            self.answer = Some(answer);
        }
        Ok(())
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answer.is_some()
    }
}

/// How far the hooks are with a request.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    purpose: HookPurpose,
    place: HookPlace,
    /// Which question of the connection it is: an answer to an earlier one is late.
    number: u32,
    /// When the whole chain has to be through.
    until: Option<Instant>,
}

/// What comes of asking.
enum Ruling {
    Allow(Grant),
    Deny(Refuse, HookRefusal),
    Wait,
}

impl Cx<'_> {
    /// Answers for a hook that said [`HookAnswer::Later`], or says why it failed. What comes of it
    /// comes after this callback. Another `Later` changes nothing and does not extend the
    /// deadline.
    ///
    /// # Errors
    ///
    /// [`NotPending`] if nobody waits for this answer: it was given, its deadline has passed, its
    /// connection has ended, or the hook is still inside [`Hook::ask`](super::Hook::ask). Nothing
    /// is done then.
    pub fn answer_hook(
        &mut self,
        id: HookRequestId,
        answer: Result<HookAnswer, HookError>,
    ) -> Result<(), NotPending> {
        let Inner { conns, out, .. } = &mut *self.inner;
        let conn = conns.get_mut(id.wsi.index, id.wsi.generation);
        let conn = conn.ok_or(NotPending)?;
        let Role::Http(http) = &mut conn.role else {
            return Err(NotPending);
        };
        let asking = http.asking_mut().ok_or(NotPending)?;
        asking.answer(id.number, answer)?;
        conn.send.mark(out);
        Ok(())
    }
}

impl Lift<'_> {
    /// Lets the hooks of the vhost decide about a request, which goes on when they have.
    pub(crate) fn ask_hooks(
        &mut self,
        chain: u32,
        bytes: &[u8],
        limits: HeadLimits,
        head: &RequestHead<'_>,
        purpose: HookPurpose,
    ) {
        let slot = self.parts.hooks.get(chain as usize);
        let deadline = slot.map_or(Duration::ZERO, |slot| slot.deadline);
        let mut cursor = Cursor {
            purpose,
            place: HookPlace { chain, at: 0 },
            number: 0,
            until: saturating_add(self.inner.out.now, deadline),
        };
        let ruling = self.ask_rest(head, &mut cursor);
        self.carry_out(ruling, bytes, limits, head, cursor);
    }

    /// Goes on with a request whose hook has answered later.
    pub(crate) fn apply_hook_answer(&mut self) {
        let Role::Http(http) = &mut self.conn.role else {
            return;
        };
        if !http.asking_mut().is_some_and(|asking| asking.is_answered()) {
            return;
        }
        let Some(mut asking) = http.take_asking() else {
            return;
        };
        if let Some(answer) = asking.answer.take() {
            self.go_on(*asking, answer);
        }
    }

    /// The hook that is waited for has not answered in time, or the chain as a whole has not.
    pub(crate) fn time_out_hooks(&mut self) {
        let now = self.inner.out.now;
        let Role::Http(http) = &mut self.conn.role else {
            return;
        };
        if http.asking_mut().is_some_and(|asking| asking.is_answered()) {
            return;
        }
        let Some(asking) = http.take_asking() else {
            return;
        };
        let cursor = asking.cursor;
        self.tell_abandoned(cursor);
        let Some(slot) = self.parts.hooks.get(cursor.place.chain as usize) else {
            return;
        };
        if cursor.until.is_some_and(|until| until <= now) {
            let error = HookError::Deadline(Deadline::new(DeadlineStage::Hooks, slot.deadline));
            return self.fail_hooks(*asking, error);
        }
        let limit = slot
            .hooks
            .get(cursor.place.at)
            .map_or(Duration::ZERO, |hook| hook.deadline);
        let error = HookError::Deadline(Deadline::new(DeadlineStage::Hook, limit));
        self.go_on(*asking, Err(error));
    }

    /// The request will not be answered by hooks any more: the one that thinks about it may stop.
    pub(crate) fn abandon_hooks(&mut self) {
        let Role::Http(http) = &mut self.conn.role else {
            return;
        };
        let Some(asking) = http.take_asking() else {
            return;
        };
        if !asking.is_answered() {
            self.tell_abandoned(asking.cursor);
        }
    }

    fn tell_abandoned(&mut self, cursor: Cursor) {
        let id = self.hook_request_id(cursor);
        let place = cursor.place;
        let Some(slot) = self.parts.hooks.get_mut(place.chain as usize) else {
            return;
        };
        if let Some(hook) = slot.hooks.get_mut(place.at) {
            let mut cx = Cx::new(self.inner, Owner::Hook(place));
            hook.dispatch.on_abandoned(&mut cx, id);
        }
    }

    fn hook_request_id(&self, cursor: Cursor) -> HookRequestId {
        let wsi: WsiId = self.conn.send.id;
        HookRequestId {
            wsi,
            number: cursor.number,
        }
    }

    /// Weighs the answer of the hook that was waited for, and asks the ones behind it.
    fn go_on(&mut self, asking: Asking, answer: Result<HookAnswer, HookError>) {
        let Asking {
            head: bytes,
            limits,
            mut cursor,
            ..
        } = asking;
        // The head was parsed and checked before; it is the same bytes.
        let Ok(head) = RequestHead::parse(&bytes, &limits) else {
            return;
        };
        let ruling = match self.weigh(&head, &mut cursor, answer) {
            Some(ruling) => ruling,
            None => self.ask_rest(&head, &mut cursor),
        };
        self.carry_out(ruling, &bytes, limits, &head, cursor);
    }

    /// The chain has taken too long, whatever its hooks may be allowed.
    fn fail_hooks(&mut self, asking: Asking, error: HookError) {
        let Ok(head) = RequestHead::parse(&asking.head, &asking.limits) else {
            return;
        };
        let ruling = self.failed(asking.cursor, error, OnFailure::Refuse);
        if let Some(ruling) = ruling {
            self.carry_out(ruling, &asking.head, asking.limits, &head, asking.cursor);
        }
    }

    /// Asks hooks from the cursor on until one decides or wants to think.
    fn ask_rest(&mut self, head: &RequestHead<'_>, cursor: &mut Cursor) -> Ruling {
        loop {
            let Some(answer) = self.ask_one(head, cursor) else {
                return self.undecided(*cursor);
            };
            if let Some(ruling) = self.weigh(head, cursor, answer) {
                return ruling;
            }
        }
    }

    /// The answer of the hook at the cursor; `None` behind the last one.
    fn ask_one(
        &mut self,
        head: &RequestHead<'_>,
        cursor: &mut Cursor,
    ) -> Option<Result<HookAnswer, HookError>> {
        let Role::Http(http) = &mut self.conn.role else {
            return None;
        };
        cursor.number = http.next_question();
        let id = self.hook_request_id(*cursor);
        let io = self.conn.io.as_ref()?;
        let slot = self.parts.hooks.get_mut(cursor.place.chain as usize)?;
        let ChainSlot {
            vhost_name, hooks, ..
        } = slot;
        let hook = hooks.get_mut(cursor.place.at)?;
        let request = HookRequest {
            id,
            vhost: self.conn.send.vhost(),
            vhost_name,
            purpose: cursor.purpose,
            head,
            io,
        };
        let mut cx = Cx::new(self.inner, Owner::Hook(cursor.place));
        Some(hook.dispatch.ask(&mut cx, &request))
    }

    /// What an answer means; `None`: the cursor stands on the next hook.
    fn weigh(
        &mut self,
        head: &RequestHead<'_>,
        cursor: &mut Cursor,
        answer: Result<HookAnswer, HookError>,
    ) -> Option<Ruling> {
        let error = match answer {
            Ok(HookAnswer::Allow(grant)) => match foreign_subprotocol(head, cursor, &grant) {
                None => return Some(Ruling::Allow(grant)),
                Some(name) => HookError::Subprotocol(name),
            },
            Ok(HookAnswer::Deny(refuse)) => {
                let refusal = self.refusal(*cursor, refuse.status, None);
                return Some(Ruling::Deny(refuse, refusal));
            }
            Ok(HookAnswer::Later) => return Some(Ruling::Wait),
            Ok(HookAnswer::Next) => {
                cursor.place.at += 1;
                return None;
            }
            Err(error) => error,
        };
        let slot = self.parts.hooks.get(cursor.place.chain as usize)?;
        let hook = slot.hooks.get(cursor.place.at);
        let policy = hook.map_or(OnFailure::Refuse, |hook| hook.on_failure);
        let ruling = self.failed(*cursor, error, policy);
        cursor.place.at += 1;
        ruling
    }

    /// A hook has failed: the observer is told, and the policy decides.
    fn failed(&mut self, cursor: Cursor, error: HookError, policy: OnFailure) -> Option<Ruling> {
        let slot = self.parts.hooks.get(cursor.place.chain as usize);
        if let Some(hook) = slot.and_then(|slot| slot.hooks.get(cursor.place.at)) {
            let mut cx = crate::context::Context::bare_cx(self.inner);
            let vhost = self.conn.send.vhost();
            let observer = &mut self.parts.observer;
            observer.on_hook_error(&mut cx, vhost, &hook.name, &error);
        }
        match policy {
            OnFailure::Next => None,
            OnFailure::Refuse => {
                let refuse = Refuse::new(503).body("try again later\n");
                let refusal = self.refusal(cursor, refuse.status, Some(error));
                Some(Ruling::Deny(refuse, refusal))
            }
        }
    }

    /// No hook has decided.
    fn undecided(&self, cursor: Cursor) -> Ruling {
        let slot = self.parts.hooks.get(cursor.place.chain as usize);
        let refuse = match slot.map(|slot| &slot.otherwise) {
            Some(None) => return Ruling::Allow(Grant::new()),
            Some(Some(refuse)) => refuse.clone(),
            None => Refuse::new(503),
        };
        let refusal = HookRefusal {
            hook: None,
            status: refuse.status,
            error: None,
        };
        Ruling::Deny(refuse, refusal)
    }

    fn refusal(&self, cursor: Cursor, status: u16, error: Option<HookError>) -> HookRefusal {
        let slot = self.parts.hooks.get(cursor.place.chain as usize);
        let hook = slot.and_then(|slot| slot.hooks.get(cursor.place.at));
        HookRefusal {
            hook: hook.map(|hook| hook.name.clone()),
            status,
            error,
        }
    }

    fn carry_out(
        &mut self,
        ruling: Ruling,
        bytes: &[u8],
        limits: HeadLimits,
        head: &RequestHead<'_>,
        cursor: Cursor,
    ) {
        match (ruling, cursor.purpose) {
            (Ruling::Wait, _) => self.wait_for_hook(bytes, limits, cursor),
            (Ruling::Allow(grant), HookPurpose::Http) => self.serve_plain(head, &grant),
            (Ruling::Allow(grant), HookPurpose::Upgrade) => {
                self.upgrade_allowed(bytes, limits, head, grant);
            }
            (Ruling::Deny(refuse, _), HookPurpose::Http) => self.deny_plain(head, &refuse),
            (Ruling::Deny(refuse, refusal), HookPurpose::Upgrade) => {
                self.respond_with(refuse.status, &refuse.headers, &refuse.body);
                self.refused(RefusalReason::Hook(Box::new(refusal)));
            }
        }
    }

    fn wait_for_hook(&mut self, bytes: &[u8], limits: HeadLimits, cursor: Cursor) {
        let slot = self.parts.hooks.get(cursor.place.chain as usize);
        let hook = slot.and_then(|slot| slot.hooks.get(cursor.place.at));
        let limit = hook.map_or(Duration::ZERO, |hook| hook.deadline);
        let own = saturating_add(self.inner.out.now, limit);
        let both = [own, cursor.until];
        self.conn.send.deadlines.stage = both.into_iter().flatten().min();
        if let Role::Http(http) = &mut self.conn.role {
            http.ask(Asking {
                head: bytes.to_vec(),
                limits,
                cursor,
                answer: None,
            });
        }
    }
}

/// A subprotocol that a hook chose and the client does not offer.
fn foreign_subprotocol(head: &RequestHead<'_>, cursor: &Cursor, grant: &Grant) -> Option<String> {
    let chosen = grant.subprotocol.as_ref()?;
    let is_offered = offered(head, cursor.purpose).any(|offer| offer == chosen);
    (!is_offered).then(|| chosen.clone())
}
