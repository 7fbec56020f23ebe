//! Changing identities and settings while connections live: exchange, watched files, expiry.
//!
//! Whoever is in the middle of a handshake, or past it, holds the configuration it began with.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{ClientConfigs, ClientTls};
use super::der::UtcTime;
use super::error::{InputProblem, PemSource, TlsConfigError};
use super::identity::{Identity, IdentityFiles};
use super::server::{ServerConfigs, ServerTls};
use super::{TlsEnv, pem};

/// The TLS of a vhost as a server: the settings, and what was made of them.
#[derive(Debug)]
pub(crate) struct ServerCell {
    settings: ServerTls,
    configs: Arc<ServerConfigs>,
    generation: u32,
}

impl ServerCell {
    pub(crate) fn new(settings: ServerTls, env: &TlsEnv) -> Result<Self, TlsConfigError> {
        Ok(Self {
            configs: Arc::new(settings.build(env)?),
            settings,
            generation: 0,
        })
    }

    /// For handshakes that begin now.
    pub(crate) const fn configs(&self) -> &Arc<ServerConfigs> {
        &self.configs
    }

    pub(crate) const fn settings(&self) -> &ServerTls {
        &self.settings
    }

    /// How often the settings were exchanged: connections that were made under another generation
    /// have another identity, or were judged by other rules.
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Exchanges everything. On an error nothing has changed.
    pub(crate) fn set(&mut self, settings: ServerTls, env: &TlsEnv) -> Result<(), TlsConfigError> {
        self.configs = Arc::new(settings.build(env)?);
        self.settings = settings;
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }

    /// Exchanges the identity. On an error nothing has changed.
    pub(crate) fn set_identity(
        &mut self,
        identity: Identity,
        env: &TlsEnv,
    ) -> Result<(), TlsConfigError> {
        self.set(self.settings.clone().with_identity(identity), env)
    }
}

/// The TLS of a vhost as a client: the settings, and what was made of them.
#[derive(Debug)]
pub(crate) struct ClientCell {
    settings: ClientTls,
    configs: Arc<ClientConfigs>,
    generation: u32,
}

impl ClientCell {
    pub(crate) fn new(settings: ClientTls, env: &TlsEnv) -> Result<Self, TlsConfigError> {
        Ok(Self {
            configs: Arc::new(settings.build(env)?),
            settings,
            generation: 0,
        })
    }

    /// For handshakes that begin now.
    pub(crate) const fn configs(&self) -> &Arc<ClientConfigs> {
        &self.configs
    }

    pub(crate) const fn settings(&self) -> &ClientTls {
        &self.settings
    }

    /// As [`ServerCell::generation`].
    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Exchanges everything. On an error nothing has changed.
    pub(crate) fn set(&mut self, settings: ClientTls, env: &TlsEnv) -> Result<(), TlsConfigError> {
        self.configs = Arc::new(settings.build(env)?);
        self.settings = settings;
        self.generation = self.generation.wrapping_add(1);
        Ok(())
    }

    /// Exchanges the identity. On an error nothing has changed.
    pub(crate) fn set_identity(
        &mut self,
        identity: Identity,
        env: &TlsEnv,
    ) -> Result<(), TlsConfigError> {
        self.set(self.settings.clone().identity(identity), env)
    }
}

/// Watches the files of an identity, by what is in them: times of modification tell too little,
/// and notifications miss what is behind symbolic links.
///
/// Whoever replaces a certificate and its key does it in two steps, and each file in several
/// writes. So what is found counts only when it was found twice in a row, and a new pair is
/// handed out only when it passes every check that a first one has to pass.
#[derive(Debug)]
pub(crate) struct FileWatch {
    files: IdentityFiles,
    interval: Duration,
    due: Instant,
    current: Identity,
    /// What the files held when they were last read, and what came of it.
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    content: Content,
    state: SeenState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeenState {
    /// For the first time.
    Once,
    /// The identity that is in use.
    InUse,
    /// It was reported that these cannot be used.
    Reported,
}

/// What came of a look at the files.
#[derive(Debug)]
pub(crate) enum WatchOutcome {
    /// They cannot be used, which is told once for each content. The identity in use stays so.
    Bad(TlsConfigError),
    /// A new identity, ready for use.
    Changed(Identity),
    /// Something else than before; the next look will tell.
    Pending,
    /// As before, or it was not time to look.
    Unchanged,
}

impl FileWatch {
    /// Watches the files of the identity in use. `None` if it has none. The first look is due after
    /// one interval, which is taken as at least a second and at most a year.
    pub(crate) fn new(current: &Identity, interval: Duration, now: Instant) -> Option<Self> {
        let interval = interval.clamp(SETTLE, YEAR);
        Some(Self {
            files: current.files()?.clone(),
            interval,
            due: now + interval,
            current: current.clone(),
            seen: None,
        })
    }

    /// When the next look is due.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Looks at the files, if it is time to. `read` reads a whole file; see [`read_file`].
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        env: &TlsEnv,
        read: impl FnMut(&Path) -> io::Result<Vec<u8>>,
    ) -> WatchOutcome {
        if now < self.due {
            return WatchOutcome::Unchanged;
        }
        let outcome = self.look(env, read);
        let pause = match outcome {
            WatchOutcome::Pending => self.interval.min(SETTLE),
            _ => self.interval,
        };
        self.due = now + pause;
        outcome
    }

    fn look(
        &mut self,
        env: &TlsEnv,
        read: impl FnMut(&Path) -> io::Result<Vec<u8>>,
    ) -> WatchOutcome {
        let content = Content::read(&self.files, read);
        let state = match &self.seen {
            Some(seen) if seen.content == content => seen.state,
            _ => {
                let state = SeenState::Once;
                self.seen = Some(Seen { content, state });
                return self.first_sight(env);
            }
        };
        if state == SeenState::InUse {
            return WatchOutcome::Unchanged;
        }
        match (content.identity(&self.files, env), state) {
            (Ok(identity), _) => {
                self.mark(SeenState::InUse);
                self.current = identity.clone();
                WatchOutcome::Changed(identity)
            }
            // Looked at again all the same: what was not valid yet becomes so with time.
            (Err(_), SeenState::Reported) => WatchOutcome::Unchanged,
            (Err(error), _) => {
                self.mark(SeenState::Reported);
                WatchOutcome::Bad(error)
            }
        }
    }

    /// The files hold something new, which may be the old identity, written in another way.
    fn first_sight(&mut self, env: &TlsEnv) -> WatchOutcome {
        let seen = self.seen.as_ref();
        let identity = seen.and_then(|seen| seen.content.identity(&self.files, env).ok());
        if identity.is_some_and(|identity| identity.is_same(&self.current)) {
            self.mark(SeenState::InUse);
            return WatchOutcome::Unchanged;
        }
        WatchOutcome::Pending
    }

    fn mark(&mut self, state: SeenState) {
        if let Some(seen) = &mut self.seen {
            seen.state = state;
        }
    }
}

/// How soon something new is looked at again.
const SETTLE: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// In days.
const DEFAULT_THRESHOLDS: [u32; 4] = [30, 7, 1, 0];
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads a file for [`FileWatch::poll`], of at most 1 MiB.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    pem::read_file_io(path)
}

/// What two files hold.
#[derive(PartialEq, Eq)]
struct Content {
    certificate: Result<Vec<u8>, io::ErrorKind>,
    /// As the certificate if they are in one file.
    key: Option<Result<Vec<u8>, io::ErrorKind>>,
}

impl Content {
    fn read(files: &IdentityFiles, mut read: impl FnMut(&Path) -> io::Result<Vec<u8>>) -> Self {
        let mut read = |path: &Path| read(path).map_err(|error| error.kind());
        Self {
            certificate: read(&files.certificate),
            key: (files.key != files.certificate).then(|| read(&files.key)),
        }
    }

    fn identity(&self, files: &IdentityFiles, env: &TlsEnv) -> Result<Identity, TlsConfigError> {
        let bytes = |path: &Path, read: &Result<Vec<u8>, io::ErrorKind>| match read {
            Ok(bytes) => Ok(bytes.clone()),
            Err(kind) => {
                let problem = InputProblem::from(io::Error::from(*kind));
                Err(TlsConfigError::input(
                    &PemSource::File(path.to_owned()),
                    problem,
                ))
            }
        };
        let certificate = bytes(&files.certificate, &self.certificate)?;
        let key = match &self.key {
            Some(key) => &bytes(&files.key, key)?,
            None => &certificate,
        };
        Identity::from_contents(files, &certificate, key, env)
    }
}

/// Says nothing of the key.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content")
    }
}

/// Tells in time that a certificate is going to expire.
#[derive(Debug)]
pub(crate) struct ExpiryWatch {
    not_after: UtcTime,
    /// Longest first; those that were passed are gone.
    thresholds: Vec<Duration>,
}

/// A certificate is about to expire, or has done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expiring {
    /// The end of its validity.
    pub not_after: UtcTime,
    /// What is left, 0 if it has expired.
    pub left: Duration,
    /// The threshold that was passed.
    pub threshold: Duration,
}

impl ExpiryWatch {
    /// Tells at each of these times before the end of this identity's validity; a threshold of
    /// 0 is the end itself.
    pub(crate) fn new(identity: &Identity, thresholds: &[Duration]) -> Self {
        let mut thresholds = thresholds.to_vec();
        thresholds.sort_unstable_by(|one, other| other.cmp(one));
        thresholds.dedup();
        Self::of(identity, thresholds)
    }

    /// At 30 days, 7 days, one day and the end; of a certificate for a shorter time not before
    /// two thirds of it have passed, or it would be told as soon as it is there.
    pub(crate) fn by_default(identity: &Identity) -> Self {
        let third = identity.not_after().since(identity.not_before()) / 3;
        let mut thresholds = DEFAULT_THRESHOLDS
            .map(|days| (DAY * days).min(third))
            .to_vec();
        thresholds.dedup();
        Self::of(identity, thresholds)
    }

    fn of(identity: &Identity, thresholds: Vec<Duration>) -> Self {
        Self {
            not_after: identity.not_after(),
            thresholds,
        }
    }

    /// The narrowest threshold that was passed since this was last asked.
    pub(crate) fn expiring(&mut self, now: UtcTime) -> Option<Expiring> {
        let left = self.not_after.since(now);
        let passed = self
            .thresholds
            .iter()
            .take_while(|&&threshold| left <= threshold)
            .count();
        let threshold = self.thresholds.drain(..passed).next_back()?;
        Some(Expiring {
            not_after: self.not_after,
            left,
            threshold,
        })
    }

    /// When there will next be something to tell.
    pub(crate) fn next(&self) -> Option<UtcTime> {
        let threshold = i64::try_from(self.thresholds.first()?.as_secs()).unwrap_or(i64::MAX);
        let at = self.not_after.unix().saturating_sub(threshold);
        Some(UtcTime::from_unix(at))
    }

    #[cfg(test)]
    pub(crate) const fn not_after(&self) -> UtcTime {
        self.not_after
    }
}
