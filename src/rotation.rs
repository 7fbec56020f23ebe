//! TLS settings of a running vhost: exchanged by hand, or by watching files; and a word in time
//! before a certificate expires.

use std::time::{Duration, Instant};

use crate::conn::Conn;
use crate::context::Context;
use crate::error::{Gone, VhostError};
use crate::id::VhostId;
use crate::inner::{Command, Inner, NewTls, TimerKind, VhostState};
use crate::timer::saturating_add;
use crate::tls::rotate::{ExpiryWatch, FileWatch, WatchOutcome, read_file};
use crate::tls::{ClientTls, Identity, IdentityWarning, ServerTls, TlsConfigError, UtcTime};
use crate::ws::{Close, CloseCode, Side};
use crate::wsi::Cx;

/// What a vhost looks after, for one side.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    watch: Option<FileWatch>,
    expiry: Option<ExpiryWatch>,
}

impl Context {
    /// Exchanges everything about a vhost's TLS as a server. New handshakes use it from now on;
    /// connections that are there keep what they were made with. Tickets from before are of no
    /// use any more.
    ///
    /// # Errors
    ///
    /// [`VhostError`] if the settings are not fit, or do not go with the vhost's listeners, or
    /// there is no such vhost; nothing has changed then.
    pub fn set_server_tls(&mut self, id: VhostId, tls: ServerTls) -> Result<(), VhostError> {
        let env = self.parts.tls_env().map_err(failed)?;
        let new = crate::tls::ServerCell::new(tls.clone(), &env).map_err(failed)?;
        let vhost = self.inner.vhost(id).ok_or(VhostError::Gone)?;
        for &(index, generation) in &vhost.listeners {
            if let Some(slot) = self.parts.listeners.get(index, generation) {
                crate::vhost::check_plaintext(slot.address, slot.tls, &new)?;
            }
        }
        let vhost = self.inner.vhost_mut(id).ok_or(VhostError::Gone)?;
        match &mut vhost.server_tls {
            Some(cell) => cell.set(tls, &env).map_err(failed)?,
            None => vhost.server_tls = Some(new),
        }
        self.announce_identity(id, Side::Server);
        Ok(())
    }

    /// Exchanges a vhost's certificate as a server; see [`Context::set_server_tls`].
    ///
    /// # Errors
    ///
    /// As [`Context::set_server_tls`], and if the vhost has no TLS settings as a server.
    pub fn set_server_identity(
        &mut self,
        id: VhostId,
        identity: Identity,
    ) -> Result<(), VhostError> {
        let env = self.parts.tls_env().map_err(failed)?;
        let vhost = self.inner.vhost_mut(id).ok_or(VhostError::Gone)?;
        let cell = vhost.server_tls.as_mut().ok_or(VhostError::NoTls)?;
        cell.set_identity(identity, &env).map_err(failed)?;
        self.announce_identity(id, Side::Server);
        Ok(())
    }

    /// Exchanges everything about a vhost's TLS as a client, its session store included. New
    /// connections use it from now on.
    ///
    /// # Errors
    ///
    /// [`VhostError`] if the settings are not fit or there is no such vhost; nothing has changed
    /// then.
    pub fn set_client_tls(&mut self, id: VhostId, tls: ClientTls) -> Result<(), VhostError> {
        let env = self.parts.tls_env().map_err(failed)?;
        let vhost = self.inner.vhost_mut(id).ok_or(VhostError::Gone)?;
        match &mut vhost.client_tls {
            Some(cell) => cell.set(tls, &env).map_err(failed)?,
            None => {
                let cell = crate::tls::ClientCell::new(tls, &env).map_err(failed)?;
                vhost.client_tls = Some(cell);
            }
        }
        self.retire_http_pool(id);
        self.announce_identity(id, Side::Client);
        Ok(())
    }

    /// Exchanges the certificate that a vhost shows as a client; see [`Context::set_client_tls`].
    ///
    /// # Errors
    ///
    /// As [`Context::set_client_tls`], and if the vhost has no TLS settings as a client.
    pub fn set_client_identity(
        &mut self,
        id: VhostId,
        identity: Identity,
    ) -> Result<(), VhostError> {
        let env = self.parts.tls_env().map_err(failed)?;
        let vhost = self.inner.vhost_mut(id).ok_or(VhostError::Gone)?;
        let cell = vhost.client_tls.as_mut().ok_or(VhostError::NoTls)?;
        cell.set_identity(identity, &env).map_err(failed)?;
        self.retire_http_pool(id);
        self.announce_identity(id, Side::Client);
        Ok(())
    }

    /// Looks at the files of the vhost's identities every `interval` (at least a second) and takes
    /// a new pair into use when it is whole and was found the same twice in a row.
    /// [`ContextObserver::on_identity_changed`](crate::ContextObserver::on_identity_changed) tells
    /// about it, and about a pair that is not fit. Identities that came from memory have no files.
    ///
    /// Connections that are there keep the old certificate; [`Context::drain_old_identity`] ends
    /// them.
    ///
    /// # Errors
    ///
    /// [`VhostError`] if there is no such vhost, it has no TLS settings, or the interval is zero.
    pub fn watch_identity(&mut self, id: VhostId, interval: Duration) -> Result<(), VhostError> {
        let vhost = self.inner.vhost_mut(id).ok_or(VhostError::Gone)?;
        if vhost.server_tls.is_none() && vhost.client_tls.is_none() {
            return Err(VhostError::NoTls);
        }
        if interval.is_zero() {
            return Err(VhostError::ZeroInterval);
        }
        vhost.watch_interval = Some(interval);
        self.refresh_upkeep(id);
        Ok(())
    }

    /// Has
    /// [`ContextObserver::on_certificate_expiring`](crate::ContextObserver::on_certificate_expiring)
    /// told at each of these times before the end of a certificate of the vhost; a threshold of
    /// zero is the end itself. Default: 30 days, 7 days, one day, and the end, but none earlier
    /// than a third of the certificate's lifetime before its end. None: never.
    ///
    /// # Errors
    ///
    /// [`VhostError::Gone`] if there is no such vhost.
    pub fn warn_before_expiry(
        &mut self,
        id: VhostId,
        thresholds: &[Duration],
    ) -> Result<(), VhostError> {
        let vhost = self.inner.vhost_mut(id).ok_or(VhostError::Gone)?;
        vhost.expiry_thresholds = Some(thresholds.to_vec());
        self.refresh_upkeep(id);
        Ok(())
    }

    /// The certificate of the context that expires first: whose it is and when that is.
    pub fn next_expiry(&self) -> Option<(VhostId, UtcTime)> {
        let vhosts = self.inner.vhosts.iter();
        let all = vhosts.flat_map(|(index, generation, vhost)| {
            let identities = [vhost.identity(Side::Server), vhost.identity(Side::Client)];
            let id = VhostId { index, generation };
            identities
                .into_iter()
                .flatten()
                .map(move |identity| (id, identity.not_after()))
        });
        all.min_by_key(|(_, not_after)| *not_after)
    }

    /// Closes (1001) the vhost's connections over TLS that were made before the settings that are
    /// in force now; how many. A client with a retry policy comes back with the new identity.
    pub fn drain_old_identity(&mut self, id: VhostId) -> usize {
        let Some(vhost) = self.inner.vhost(id) else {
            return 0;
        };
        let server = vhost
            .server_tls
            .as_ref()
            .map(crate::tls::ServerCell::generation);
        let client = vhost
            .client_tls
            .as_ref()
            .map(crate::tls::ClientCell::generation);
        let is_old = |conn: &Conn| {
            let made_with = conn.io.as_ref().and_then(|io| io.secure.as_ref());
            let current = match conn.send.side {
                Side::Server => server,
                Side::Client => client,
            };
            made_with.is_some_and(|secure| Some(secure.generation) != current)
        };
        let Inner { conns, out, .. } = &mut self.inner;
        let mut closed = 0;
        for (_, _, conn) in conns.iter_mut() {
            let lives = conn.is_established() && conn.send.is_open();
            if conn.send.vhost() == id && lives && is_old(conn) {
                let close = Close::new(CloseCode::GOING_AWAY, "new certificate");
                conn.send
                    .close(out, &close, crate::error::CloseKind::IdentityReplaced);
                closed += 1;
            }
        }
        closed
    }

    /// Exchanges settings as a callback asked for, and tells what came of it.
    pub(crate) fn set_tls_as_asked(&mut self, id: VhostId, new: NewTls) {
        let (side, outcome) = match new {
            NewTls::Client(tls) => (Side::Client, self.set_client_tls(id, tls)),
            NewTls::ClientIdentity(new) => (Side::Client, self.set_client_identity(id, new)),
            NewTls::Server(tls) => (Side::Server, self.set_server_tls(id, tls)),
            NewTls::ServerIdentity(new) => (Side::Server, self.set_server_identity(id, new)),
        };
        let mut cx = Self::bare_cx(&mut self.inner);
        let observer = &mut self.parts.observer;
        match outcome {
            Ok(()) => observer.on_identity_changed(&mut cx, id, side, Ok(())),
            Err(VhostError::Tls(error)) => {
                observer.on_identity_changed(&mut cx, id, side, Err(&error));
            }
            Err(error) => observer.on_vhost_error(&mut cx, id, &error),
        }
    }

    /// Begins to look after an identity that is new.
    fn announce_identity(&mut self, id: VhostId, side: Side) {
        self.refresh_upkeep(id);
        self.inner
            .commands
            .push_back(Command::NewIdentity(id, side));
    }

    /// An identity is new: tells what peers may object to, and when it ends.
    pub(crate) fn on_new_identity(&mut self, id: VhostId, side: Side) {
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        let upkeep = vhost.upkeep(side);
        if upkeep.expiry.is_none() && upkeep.watch.is_none() {
            self.refresh_upkeep(id);
        }
        self.warn_about_identity(id, side);
    }

    fn warn_about_identity(&mut self, id: VhostId, side: Side) {
        let Some(vhost) = self.inner.vhost(id) else {
            return;
        };
        let warnings = vhost.identity_warnings(side);
        #[cfg(feature = "log")]
        let label = vhost.label();
        for warning in warnings {
            #[cfg(feature = "log")]
            log::warn!("vhost {label}, {side:?}: {warning}");
            let mut cx = Self::bare_cx(&mut self.inner);
            self.parts
                .observer
                .on_identity_warning(&mut cx, id, side, &warning);
        }
    }

    /// Begins anew what a vhost looks after, for the identities that it has now.
    fn refresh_upkeep(&mut self, id: VhostId) {
        self.read_clock();
        let now = self.inner.out.now;
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        for side in [Side::Server, Side::Client] {
            let identity = vhost.identity(side).cloned();
            let thresholds = vhost.expiry_thresholds.clone();
            let interval = vhost.watch_interval;
            let upkeep = vhost.upkeep(side);
            upkeep.expiry = identity
                .as_ref()
                .and_then(|identity| expiry_watch(identity, thresholds.as_deref()));
            upkeep.watch = identity
                .as_ref()
                .zip(interval)
                .and_then(|(identity, interval)| FileWatch::new(identity, interval, now));
        }
        self.arm_upkeep(id);
    }

    fn arm_upkeep(&mut self, id: VhostId) {
        let utc = self.parts.tls.as_ref().and_then(|env| env.now().ok());
        let now = self.inner.out.now;
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        let sides = [
            vhost.upkeep(Side::Server).due(now, utc),
            vhost.upkeep(Side::Client).due(now, utc),
        ];
        let old = vhost.upkeep_timer.take();
        let due = sides.into_iter().flatten().min();
        if let Some(key) = old {
            self.inner.out.timers.cancel(key);
        }
        if let Some(at) = due {
            let key = self.inner.out.timers.arm(at, TimerKind::Upkeep(id));
            if let Some(vhost) = self.inner.vhost_mut(id) {
                vhost.upkeep_timer = Some(key);
            }
        }
    }

    /// Looks after the identities of a vhost: the timer has come.
    pub(crate) fn on_upkeep(&mut self, id: VhostId) {
        let active = |state| state == VhostState::Active;
        if !self
            .inner
            .vhost(id)
            .is_some_and(|vhost| active(vhost.state))
        {
            return;
        }
        for side in [Side::Server, Side::Client] {
            self.look_at_files(id, side);
            self.look_at_expiry(id, side);
        }
        self.arm_upkeep(id);
    }

    fn look_at_files(&mut self, id: VhostId, side: Side) {
        let now = self.inner.out.now;
        let Some(env) = self.parts.tls.clone() else {
            return;
        };
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        let Some(watch) = &mut vhost.upkeep(side).watch else {
            return;
        };
        let outcome = match watch.poll(now, &env, read_file) {
            WatchOutcome::Unchanged | WatchOutcome::Pending => return,
            WatchOutcome::Bad(error) => Err(error),
            WatchOutcome::Changed(identity) => vhost.replace_identity(side, identity, &env),
        };
        if outcome.is_ok() {
            let thresholds = vhost.expiry_thresholds.clone();
            let identity = vhost.identity(side).cloned();
            vhost.upkeep(side).expiry =
                identity.and_then(|identity| expiry_watch(&identity, thresholds.as_deref()));
        }
        self.retire_http_pool(id);
        let mut cx = Self::bare_cx(&mut self.inner);
        let told = outcome.as_ref().map(|&()| ());
        self.parts
            .observer
            .on_identity_changed(&mut cx, id, side, told);
        if outcome.is_ok() {
            self.warn_about_identity(id, side);
        }
    }

    fn look_at_expiry(&mut self, id: VhostId, side: Side) {
        let Some(utc) = self.parts.tls.as_ref().and_then(|env| env.now().ok()) else {
            return;
        };
        let Some(vhost) = self.inner.vhost_mut(id) else {
            return;
        };
        let expiry = vhost.upkeep(side).expiry.as_mut();
        if let Some(expiring) = expiry.and_then(|expiry| expiry.expiring(utc)) {
            let mut cx = Self::bare_cx(&mut self.inner);
            self.parts
                .observer
                .on_certificate_expiring(&mut cx, id, side, &expiring);
        }
    }
}

/// TLS settings of a vhost, exchanged when no callback runs. Each outcome comes to the observer:
/// [`on_identity_changed`](crate::ContextObserver::on_identity_changed), or
/// [`on_vhost_error`](crate::ContextObserver::on_vhost_error) when the vhost itself does not go
/// with them; the vhost stays as it was then.
impl Cx<'_> {
    /// As [`Context::set_server_tls`], when no callback runs.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn set_server_tls(&mut self, id: VhostId, tls: ServerTls) -> Result<(), Gone> {
        self.inner.queue_tls(id, NewTls::Server(tls))
    }

    /// As [`Context::set_server_identity`], when no callback runs.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn set_server_identity(&mut self, id: VhostId, identity: Identity) -> Result<(), Gone> {
        self.inner.queue_tls(id, NewTls::ServerIdentity(identity))
    }

    /// As [`Context::set_client_tls`], when no callback runs.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn set_client_tls(&mut self, id: VhostId, tls: ClientTls) -> Result<(), Gone> {
        self.inner.queue_tls(id, NewTls::Client(tls))
    }

    /// As [`Context::set_client_identity`], when no callback runs.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn set_client_identity(&mut self, id: VhostId, identity: Identity) -> Result<(), Gone> {
        self.inner.queue_tls(id, NewTls::ClientIdentity(identity))
    }

    /// As [`Context::drain_old_identity`], when no callback runs: after the exchanges that were
    /// asked for before.
    ///
    /// # Errors
    ///
    /// [`Gone`] if there is no such vhost.
    pub fn drain_old_identity(&mut self, id: VhostId) -> Result<(), Gone> {
        self.inner.vhost(id).ok_or(Gone)?;
        let command = Command::DrainOldIdentity(id);
        self.inner.commands.push_back(command);
        Ok(())
    }
}

impl Inner {
    fn queue_tls(&mut self, id: VhostId, new: NewTls) -> Result<(), Gone> {
        self.vhost(id).ok_or(Gone)?;
        self.commands.push_back(Command::SetTls(id, Box::new(new)));
        Ok(())
    }
}

impl crate::inner::Vhost {
    fn identity(&self, side: Side) -> Option<&Identity> {
        match side {
            Side::Server => self.server_tls.as_ref()?.settings().current_identity(),
            Side::Client => self.client_tls.as_ref()?.settings().current_identity(),
        }
    }

    fn identity_warnings(&self, side: Side) -> Vec<IdentityWarning> {
        let Some(identity) = self.identity(side) else {
            return Vec::new();
        };
        match side {
            Side::Server => {
                let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
                identity.warnings_for_server(names.iter().map(String::as_str))
            }
            Side::Client => identity.warnings_for_client(),
        }
    }

    fn upkeep(&mut self, side: Side) -> &mut Upkeep {
        match side {
            Side::Server => &mut self.server_upkeep,
            Side::Client => &mut self.client_upkeep,
        }
    }

    fn replace_identity(
        &mut self,
        side: Side,
        identity: Identity,
        env: &crate::tls::TlsEnv,
    ) -> Result<(), TlsConfigError> {
        match (side, &mut self.server_tls, &mut self.client_tls) {
            (Side::Server, Some(cell), _) => cell.set_identity(identity, env),
            (Side::Client, _, Some(cell)) => cell.set_identity(identity, env),
            _ => Ok(()),
        }
    }
}

impl Upkeep {
    /// When there is something to do. Expiry is by the wall clock, which may be set at any time,
    /// so it is looked at every hour at least.
    fn due(&self, now: Instant, utc: Option<UtcTime>) -> Option<Instant> {
        let files = self.watch.as_ref().map(FileWatch::due);
        let next = self.expiry.as_ref().and_then(ExpiryWatch::next);
        let expiry = next.zip(utc).and_then(|(next, utc)| {
            let left = next.since(utc) + Duration::from_secs(1);
            saturating_add(now, left.min(CLOCK_CHECK))
        });
        [files, expiry].into_iter().flatten().min()
    }
}

fn expiry_watch(identity: &Identity, thresholds: Option<&[Duration]>) -> Option<ExpiryWatch> {
    match thresholds {
        None => Some(ExpiryWatch::by_default(identity)),
        Some([]) => None,
        Some(thresholds) => Some(ExpiryWatch::new(identity, thresholds)),
    }
}

fn failed(error: TlsConfigError) -> VhostError {
    VhostError::Tls(Box::new(error))
}

const CLOCK_CHECK: Duration = Duration::from_secs(3600);
