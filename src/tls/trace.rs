//! What happened in a handshake, step by step, with times.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use super::alert::Alert;
use super::failure::CertificateProblem;
use super::hello::{ClientHello, TlsVersion};

/// A step of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsStep {
    /// Client: a `danger_` option lets the server pass although it was not verified.
    AcceptedUnverified {
        /// What verification found; `None` where it was skipped.
        problem: Option<CertificateProblem>,
    },
    /// The peer's alert came.
    AlertReceived(Alert),
    /// We gave up with an alert.
    AlertSent(Alert),
    /// Server: a certificate was asked for. Client: the server asked for one.
    CertificateRequested,
    /// The peer's certificate came.
    CertificateReceived {
        /// Certificates in the chain; 0 if the peer has none to show.
        count: usize,
    },
    /// Client: our certificate went out.
    CertificateSent {
        /// Certificates in the chain; 0 if we have none to show.
        count: usize,
    },
    /// The handshake is complete. A TLS 1.3 client is here before the server has looked at the
    /// client's certificate: a rejection comes later, as an alert.
    Established {
        /// The version agreed on.
        version: TlsVersion,
        /// The cipher suite, by its IANA name.
        suite: &'static str,
        /// The group of the key exchange; `None` if there was none (resumption in TLS 1.2).
        group: Option<&'static str>,
        /// The application protocol agreed on, if any (ALPN).
        alpn: Option<Box<str>>,
        /// How it came about.
        handshake: TlsHandshake,
    },
    /// The handshake failed; the text is that of the error.
    Failed(Box<str>),
    /// Server: the client's hello came.
    HelloReceived(HelloSummary),
    /// One more round trip: the server asked for another hello.
    HelloRetryRequest,
    /// Client: our hello went out.
    HelloSent(HelloSummary),
    /// The peer ended its side in order (`close_notify`).
    PeerClosed,
    /// The peer's certificate was not accepted.
    VerificationFailed(CertificateProblem),
    /// The peer's certificate was accepted, and the peer has its key.
    Verified,
    /// The application's own check refuses the peer, for that reason.
    Refused(Box<str>),
    /// Server: the vhost is known.
    VhostChosen {
        /// The vhost's name.
        vhost: Box<str>,
        /// Why it is this one.
        by: ChosenBy,
    },
}

impl fmt::Display for TlsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptedUnverified { problem: None } => f.write_str("certificate not verified"),
            Self::AcceptedUnverified {
                problem: Some(problem),
            } => write!(f, "certificate accepted in spite of: {problem}"),
            Self::Refused(reason) => write!(f, "refused by the application: {reason}"),
            Self::AlertReceived(alert) => write!(f, "alert received: {alert}"),
            Self::AlertSent(alert) => write!(f, "alert sent: {alert}"),
            Self::CertificateRequested => f.write_str("certificate requested"),
            Self::CertificateReceived { count } => write!(f, "certificate received: {count}"),
            Self::CertificateSent { count } => write!(f, "certificate sent: {count}"),
            Self::Established {
                version,
                suite,
                group,
                alpn,
                handshake,
            } => {
                write!(f, "established: {version}, {suite}, {handshake}")?;
                group.map_or(Ok(()), |group| write!(f, ", {group}"))?;
                match alpn {
                    Some(alpn) => write!(f, ", ALPN {alpn}"),
                    None => Ok(()),
                }
            }
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::HelloReceived(hello) => write!(f, "ClientHello received: {hello}"),
            Self::HelloRetryRequest => f.write_str("HelloRetryRequest"),
            Self::HelloSent(hello) => write!(f, "ClientHello sent: {hello}"),
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::VerificationFailed(problem) => write!(f, "certificate not accepted: {problem}"),
            Self::Verified => f.write_str("certificate verified"),
            Self::VhostChosen { vhost, by } => write!(f, "vhost {vhost:?} chosen by {by}"),
        }
    }
}

/// What a trace keeps of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HelloSummary {
    /// The host name asked for.
    pub server_name: Option<Box<str>>,
    /// The first application protocols offered; what is not printable ASCII is escaped.
    pub alpn: Vec<Box<str>>,
    /// The first versions offered.
    pub versions: Vec<TlsVersion>,
    /// Whether it [looks like that of a browser](ClientHello::looks_like_browser).
    pub browser: bool,
}

impl From<&ClientHello> for HelloSummary {
    fn from(hello: &ClientHello) -> Self {
        let text = |name: &[u8]| name.escape_ascii().to_string().into();
        Self {
            server_name: hello.server_name().map(Into::into),
            alpn: hello.alpn().take(MAX_LISTED).map(text).collect(),
            versions: hello.versions().iter().copied().take(MAX_LISTED).collect(),
            browser: hello.looks_like_browser(),
        }
    }
}

impl fmt::Display for HelloSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server_name {
            Some(name) => write!(f, "SNI {name}")?,
            None => f.write_str("no SNI")?,
        }
        match self.alpn.as_slice() {
            [] => f.write_str(", no ALPN")?,
            names => write!(f, ", ALPN {}", names.join(" "))?,
        }
        for version in &self.versions {
            write!(f, ", {version}")?;
        }
        f.write_str(if self.browser { ", a browser" } else { "" })
    }
}

/// How a handshake came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsHandshake {
    /// With certificates.
    Full,
    /// With certificates, and one more round trip for another ClientHello.
    FullWithRetry,
    /// From the secret of an earlier connection; the certificates are those of then.
    Resumed,
}

impl From<rustls::HandshakeKind> for TlsHandshake {
    fn from(kind: rustls::HandshakeKind) -> Self {
        match kind {
            rustls::HandshakeKind::Full => Self::Full,
            rustls::HandshakeKind::FullWithHelloRetryRequest => Self::FullWithRetry,
            rustls::HandshakeKind::Resumed => Self::Resumed,
        }
    }
}

impl fmt::Display for TlsHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full handshake",
            Self::FullWithRetry => "full handshake with retry",
            Self::Resumed => "resumed",
        })
    }
}

/// Why a connection belongs to its vhost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChosenBy {
    /// The client sent no name (or an address), and the vhost is the listener's default.
    DefaultForNoName,
    /// No vhost has the client's name, and this one is the listener's default.
    DefaultForUnknownName,
    /// It has exactly the client's name.
    ExactName,
    /// Its wildcard name covers the client's.
    WildcardName,
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultForNoName => "default, for there was no name",
            Self::DefaultForUnknownName => "default, for the name is unknown",
            Self::ExactName => "exact name",
            Self::WildcardName => "wildcard name",
        })
    }
}

/// The steps of one handshake, in order, each with the time since the session began.
///
/// Each kind of step is there once, at its first occurrence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsTrace {
    steps: Vec<(Duration, TlsStep)>,
}

impl TlsTrace {
    /// The steps.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (Duration, &TlsStep)> + '_ {
        self.steps.iter().map(|(at, step)| (*at, step))
    }
}

impl fmt::Display for TlsTrace {
    /// One line a step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in &self.steps {
            writeln!(f, "{:9.3} ms  {step}", at.as_secs_f64() * 1000.0)?;
        }
        Ok(())
    }
}

/// Writes a trace down, as long as a handshake goes on.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    now: Instant,
    trace: TlsTrace,
}

impl Recorder {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            start: now,
            now,
            trace: TlsTrace { steps: Vec::new() },
        }
    }

    /// A copy of what has been written so far.
    pub(crate) fn trace(&self) -> TlsTrace {
        self.trace.clone()
    }

    /// What has been written so far.
    pub(crate) fn into_trace(self) -> TlsTrace {
        self.trace
    }

    /// Writes a step down, unless one of its kind is there. That bounds the trace by the number of
    /// kinds, and lets a hook and the session report the same thing.
    fn push(&mut self, step: TlsStep) {
        let kind = mem::discriminant(&step);
        let mut kinds = self
            .trace
            .steps
            .iter()
            .map(|(_, step)| mem::discriminant(step));
        if !kinds.any(|known| known == kind) {
            let at = self.now.saturating_duration_since(self.start);
            self.trace.steps.push((at, step));
        }
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.trace.steps.capacity() * size_of::<(Duration, TlsStep)>()
    }
}

thread_local! {
    /// The recorder of the session that is at work on this thread. rustls' hooks are told of no
    /// connection, but are called within it.
    static CURRENT: RefCell<Option<Box<Recorder>>> = const { RefCell::new(None) };
}

/// Adds a step to the trace of the session at work on this thread; does nothing outside of one.
/// For hooks of rustls, such as verifiers and resolvers, and for whoever chooses the vhost.
pub(crate) fn note(step: TlsStep) {
    CURRENT.with_borrow_mut(|current| {
        if let Some(recorder) = current {
            recorder.push(step);
        }
    });
}

/// Like [`note`], for steps that cost something to describe.
pub(crate) fn note_with(step: impl FnOnce() -> TlsStep) {
    if CURRENT.with_borrow(Option::is_some) {
        note(step());
    }
}

/// While this lives, a recorder is the one that [`note`] writes to.
#[derive(Debug)]
pub(crate) struct Scope {
    outer: Option<Box<Recorder>>,
}

impl Scope {
    /// Makes `recorder` the current one, at the time `now`.
    pub(crate) fn enter(mut recorder: Box<Recorder>, now: Instant) -> Self {
        recorder.now = now;
        Self {
            outer: CURRENT.replace(Some(recorder)),
        }
    }

    /// Gives the recorder back.
    pub(crate) fn leave(self) -> Option<Box<Recorder>> {
        CURRENT.take()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

/// How much of a list a trace keeps.
const MAX_LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(now: Instant) -> Box<Recorder> {
        Box::new(Recorder::new(now))
    }

    fn steps(recorder: Option<Box<Recorder>>) -> Vec<(u64, TlsStep)> {
        let trace = recorder.unwrap().into_trace();
        let millis = |at: Duration| u64::try_from(at.as_millis()).unwrap();
        trace
            .steps()
            .map(|(at, step)| (millis(at), step.clone()))
            .collect()
    }

    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn notes_go_to_the_session_at_work_with_its_time() {
        let start = now();
        note(TlsStep::Verified);
        let scope = Scope::enter(recorder(start), start + Duration::from_millis(3));
        note(TlsStep::CertificateRequested);
        note_with(|| TlsStep::CertificateSent { count: 2 });
        let kept = scope.leave();
        note(TlsStep::Verified);
        note_with(|| unreachable!("nobody listens"));
        let scope = Scope::enter(kept.unwrap(), start + Duration::from_millis(5));
        note(TlsStep::PeerClosed);
        let expected = [
            (3, TlsStep::CertificateRequested),
            (3, TlsStep::CertificateSent { count: 2 }),
            (5, TlsStep::PeerClosed),
        ];
        assert_eq!(steps(scope.leave()), expected);
    }

    #[test]
    fn a_session_inside_another_does_not_lose_the_outer_one() {
        let start = now();
        let outer = Scope::enter(recorder(start), start);
        note(TlsStep::Verified);
        let inner = Scope::enter(recorder(start), start);
        note(TlsStep::PeerClosed);
        assert_eq!(steps(inner.leave()), [(0, TlsStep::PeerClosed)]);
        note(TlsStep::HelloRetryRequest);
        let expected = [(0, TlsStep::Verified), (0, TlsStep::HelloRetryRequest)];
        assert_eq!(steps(outer.leave()), expected);
    }

    #[test]
    fn a_panic_in_a_hook_leaves_no_recorder_behind() {
        let start = now();
        let panicked = std::panic::catch_unwind(|| {
            let _scope = Scope::enter(recorder(start), start);
            panic!("a verifier's");
        });
        assert!(panicked.is_err());
        note_with(|| unreachable!("nobody listens"));
    }

    #[test]
    fn each_kind_of_step_is_kept_once() {
        let mut recorder = Recorder::new(now());
        for count in 0..1000 {
            recorder.push(TlsStep::CertificateReceived { count });
            recorder.push(TlsStep::Verified);
        }
        let trace = recorder.into_trace();
        let steps: Vec<_> = trace.steps().map(|(_, step)| step.clone()).collect();
        let first = TlsStep::CertificateReceived { count: 0 };
        assert_eq!(steps, [first, TlsStep::Verified]);
    }

    #[test]
    fn a_trace_reads_as_a_line_a_step() {
        let start = now();
        let scope = Scope::enter(recorder(start), start + Duration::from_micros(1500));
        note(TlsStep::VhostChosen {
            vhost: "a.test".into(),
            by: ChosenBy::ExactName,
        });
        note(TlsStep::AlertSent(Alert::CERTIFICATE_REQUIRED));
        let text = scope.leave().unwrap().into_trace().to_string();
        assert_eq!(
            text,
            "    1.500 ms  vhost \"a.test\" chosen by exact name\n    1.500 ms  alert sent: \
             certificate_required (116)\n"
        );
    }
}
