//! rustls' unbuffered connections, the same for client and server.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    ReadEarlyData, UnbufferedStatus,
};
use rustls::{CommonState, Error};
use thiserror::Error as ThisError;

use super::alert::Alert;
use super::tap::{ALERT, Boundary, MAX_FRAGMENT_LEN};

/// One side of a connection.
pub(crate) trait Unbuffered {
    /// rustls' marker for the side.
    type Data;

    /// Works on `tls` until there is something to report.
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides have in common.
    fn common(&self) -> &CommonState;

    /// Moves 0-RTT data to the end of `early`.
    fn read_early(
        data: ReadEarlyData<'_, '_, Self::Data>,
        early: &mut Vec<u8>,
    ) -> Result<(), Error>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    #[inline(always)]
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn read_early(_: ReadEarlyData<'_, '_, Self::Data>, _: &mut Vec<u8>) -> Result<(), Error> {
        Err(Error::General("a server sent 0-RTT data".into()))
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    #[inline(always)]
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn read_early(
        mut data: ReadEarlyData<'_, '_, Self::Data>,
        early: &mut Vec<u8>,
    ) -> Result<(), Error> {
        while let Some(record) = data.next_record() {
            early.extend_from_slice(record?.payload);
        }
        Ok(())
    }
}

/// Where output goes: to the ends of these, but first to the place, as far as there is room.
#[derive(Debug)]
pub(crate) struct Buffers<'a, 'p> {
    pub(crate) place: &'a mut Place<'p>,
    pub(crate) plain: &'a mut Vec<u8>,
    pub(crate) out: &'a mut Vec<u8>,
}

/// Where application data that come next have their place.
#[derive(Debug, Default)]
pub(crate) struct Place<'p> {
    /// What is left of the room.
    room: &'p mut [u8],
    filled: usize,
}

impl<'p> Place<'p> {
    pub(crate) const fn new(room: &'p mut [u8]) -> Self {
        Self { room, filled: 0 }
    }

    /// How much of it has been filled.
    pub(crate) const fn filled(&self) -> usize {
        self.filled
    }

    /// Takes the front of `payload`; gives what there was no room for.
    fn fill<'d>(&mut self, payload: &'d [u8]) -> &'d [u8] {
        let room = std::mem::take(&mut self.room);
        let (here, behind) = payload
            .split_at_checked(room.len())
            .unwrap_or((payload, &[]));
        if let Some((place, left)) = room.split_at_mut_checked(here.len()) {
            place.copy_from_slice(here);
            self.room = left;
            self.filled += here.len();
        }
        behind
    }
}

/// Puts application data to their place, and what there is no room for to the end of `plain`.
#[inline]
fn give(place: &mut Place<'_>, plain: &mut Vec<u8>, payload: &[u8]) {
    let payload = match place.room {
        [] => payload,
        _ => place.fill(payload),
    };
    plain.extend_from_slice(payload);
}

/// What came of working on some bytes.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// How many of them are done with.
    pub(crate) used: usize,
    /// `close_notify` came.
    pub(crate) closed_by_peer: bool,
    /// Why it cannot go on, and what the peer was told.
    pub(crate) error: Option<(Error, SentAlert)>,
}

/// The alert that went out with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentAlert {
    /// In the clear, so that it could be seen.
    Clear(Alert),
    /// Encrypted: rustls does not say which.
    Encrypted,
    /// None was sent.
    Nothing,
}

/// Why plaintext was not encrypted. Nothing of it was.
#[derive(Clone, Copy, Debug, ThisError, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum SealError {
    /// The session has been closed by us, or has failed.
    #[error("the TLS session is over")]
    Closed,
    /// The keys have encrypted as much as they may, and TLS 1.2 has no way to renew them.
    #[error("the keys of the TLS session are used up; connect again")]
    KeysExhausted,
    /// The handshake is not complete.
    #[error("the TLS handshake is not complete")]
    NotEstablished,
}

/// What came of bytes that were more than application data in whole records.
#[derive(Debug, Default)]
pub(crate) struct Odd {
    pub(crate) turn: Turn,
    /// What goes to the peer.
    pub(crate) out: Vec<u8>,
    /// Where the bytes end between the records, for who is told of them.
    pub(crate) boundary: Boundary,
}

/// As [`run`] where nothing but application data in whole records is expected. Does the same with
/// what is anything else, and says so.
#[inline(always)]
pub(crate) fn open<U: Unbuffered>(
    connection: &mut U,
    bytes: &mut [u8],
    place: &mut Place<'_>,
    plain: &mut Vec<u8>,
) -> Result<(), Box<Odd>> {
    let len = bytes.len();
    let mut used = 0;
    loop {
        let rest = bytes.get_mut(used..).unwrap_or_default();
        let status = connection.process(rest);
        let Ok(ConnectionState::ReadTraffic(mut traffic)) = status.state else {
            let mut odd = Box::<Odd>::default();
            let Odd { turn, out, .. } = &mut *odd;
            turn.used = used;
            let buffers = &mut Buffers { place, plain, out };
            let step = work_off::<U>(status, turn, &mut None, buffers);
            if goes_on(connection, step, turn, len, buffers) {
                run_on(connection, bytes, turn, None, buffers);
            }
            return Err(odd);
        };
        used += status.discard;
        while let Some(Ok(record)) = traffic.next_record() {
            used += record.discard;
            give(place, plain, record.payload);
            if traffic.peek_len().is_none() {
                break;
            }
        }
        if used >= len && !connection.common().wants_write() {
            return Ok(());
        }
    }
}

/// Works on `bytes` until rustls needs more, or cannot go on. During a handshake 0-RTT data go to
/// `early`.
pub(crate) fn run<U: Unbuffered>(
    connection: &mut U,
    bytes: &mut [u8],
    early: Option<&mut Vec<u8>>,
    buffers: &mut Buffers<'_, '_>,
) -> Turn {
    let mut turn = Turn::default();
    run_on(connection, bytes, &mut turn, early, buffers);
    turn
}

#[inline(never)]
fn run_on<U: Unbuffered>(
    connection: &mut U,
    bytes: &mut [u8],
    turn: &mut Turn,
    mut early: Option<&mut Vec<u8>>,
    buffers: &mut Buffers<'_, '_>,
) {
    loop {
        let rest = bytes.get_mut(turn.used..).unwrap_or_default();
        let status = connection.process(rest);
        let step = work_off::<U>(status, turn, &mut early, buffers);
        if !goes_on(connection, step, turn, bytes.len(), buffers) {
            return;
        }
    }
}

/// Does what a state of rustls asks for.
fn work_off<U: Unbuffered>(
    status: UnbufferedStatus<'_, '_, U::Data>,
    turn: &mut Turn,
    early: &mut Option<&mut Vec<u8>>,
    buffers: &mut Buffers<'_, '_>,
) -> Result<Step, Error> {
    turn.used += status.discard;
    match status.state? {
        ConnectionState::ReadTraffic(mut traffic) => {
            // Only 0-RTT data that the handshake has confirmed is still here.
            if let Some(early) = early {
                buffers.plain.append(early);
            }
            while let Some(Ok(record)) = traffic.next_record() {
                turn.used += record.discard;
                give(buffers.place, buffers.plain, record.payload);
            }
            Ok(Step::Read)
        }
        ConnectionState::ReadEarlyData(data) => {
            let mut none = Vec::new();
            let early = early.as_deref_mut().unwrap_or(&mut none);
            U::read_early(data, early).map(|()| Step::Again)
        }
        ConnectionState::EncodeTlsData(data) => encode(data, buffers.out),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed => {
            turn.closed_by_peer = true;
            Ok(Step::Again)
        }
        _ => Ok(Step::Blocked),
    }
}

/// Whether rustls is to be asked again.
fn goes_on<U: Unbuffered>(
    connection: &mut U,
    step: Result<Step, Error>,
    turn: &mut Turn,
    len: usize,
    buffers: &mut Buffers<'_, '_>,
) -> bool {
    match step {
        Ok(Step::Again) => true,
        // With nothing to read and nothing to answer it would say that it is blocked.
        Ok(Step::Read) => turn.used < len || connection.common().wants_write(),
        Ok(Step::Blocked) => false,
        Err(error) => {
            turn.error = Some((error, flush_alert(connection, buffers.out)));
            false
        }
    }
}

/// Encrypts `plaintext` to the end of `out`. `stash` is what rustls has left of the input: without
/// it rustls would look for the rest of a message in nothing.
pub(crate) fn seal<U: Unbuffered>(
    connection: &mut U,
    stash: &mut [u8],
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    let result = write(connection, stash, out, |traffic, out| {
        let records = 1 + plaintext.len() / MAX_FRAGMENT_LEN;
        let room = plaintext.len() + records * RECORD_OVERHEAD;
        append(out, room, |space| traffic.encrypt(plaintext, space))
    });
    if result == Err(SealError::KeysExhausted) {
        // rustls has queued a close_notify.
        flush(connection, out);
    }
    result
}

/// As [`seal`], to the begin of `room`; how many bytes the records take. `None` if nothing was
/// encrypted because something has to go ahead of it, or because of a lack of room: `seal` does it.
#[inline(always)]
pub(crate) fn seal_into<U: Unbuffered>(
    connection: &mut U,
    stash: &mut [u8],
    plaintext: &[u8],
    room: &mut [u8],
) -> Result<Option<usize>, SealError> {
    if connection.common().wants_write() {
        return Ok(None);
    }
    loop {
        match connection.process(stash).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                return Ok(traffic.encrypt(plaintext, room).ok());
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            Ok(_) | Err(_) => return Err(SealError::Closed),
        }
    }
}

/// Appends `close_notify` to `out`.
pub(crate) fn close<U: Unbuffered>(connection: &mut U, stash: &mut [u8], out: &mut Vec<u8>) {
    // It fails only where sending is over already.
    let _ = write(connection, stash, out, |traffic, out| {
        append(out, RECORD_OVERHEAD, |space| {
            traffic.queue_close_notify(space)
        })
    });
}

enum Step {
    Again,
    Blocked,
    /// Application data were read.
    Read,
}

/// Gets rustls into the state in which it encrypts, and lets `write` do it.
fn write<U: Unbuffered>(
    connection: &mut U,
    stash: &mut [u8],
    out: &mut Vec<u8>,
    write: impl FnOnce(
        &mut rustls::unbuffered::WriteTraffic<'_, U::Data>,
        &mut Vec<u8>,
    ) -> Result<(), EncryptError>,
) -> Result<(), SealError> {
    loop {
        let UnbufferedStatus { discard, state } = connection.process(stash);
        debug_assert_eq!(
            discard, 0,
            "everything complete was worked off when it came"
        );
        match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                return write(&mut traffic, out).map_err(|_| SealError::KeysExhausted);
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, out).map_err(|_| SealError::Closed)?;
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            Ok(_) | Err(_) => return Err(SealError::Closed),
        }
    }
}

/// Sends what an error has queued, and reads it where it is in the clear.
fn flush_alert<U: Unbuffered>(connection: &mut U, out: &mut Vec<u8>) -> SentAlert {
    let begin = out.len();
    flush(connection, out);
    match out.get(begin..).unwrap_or_default() {
        [] => SentAlert::Nothing,
        [ALERT, _, _, 0, 2, _, code] => SentAlert::Clear(Alert::new(*code)),
        _ => SentAlert::Encrypted,
    }
}

/// Sends what is queued, and nothing else: rustls looks at its queue before it looks for input.
fn flush<U: Unbuffered>(connection: &mut U, out: &mut Vec<u8>) {
    while connection.common().wants_write() {
        let sent = match connection.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out).is_ok(),
            _ => false,
        };
        if !sent {
            return;
        }
    }
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<Step, Error> {
    let encoded = append(out, 0, |space| data.encode(space));
    let failed = |error: EncodeError| Error::General(error.to_string());
    encoded.map(|()| Step::Again).map_err(failed)
}

/// Lets `write` write to the end of `out`: into `room` bytes, or into as many as it then asks for.
fn append<E: Short>(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let begin = out.len();
    loop {
        out.resize(begin + room, 0);
        let result = write(out.get_mut(begin..).unwrap_or_default());
        match result {
            Ok(written) => {
                out.truncate(begin + written);
                return Ok(());
            }
            Err(error) => match error.required() {
                Some(required) if required > room => room = required,
                _ => {
                    out.truncate(begin);
                    return Err(error);
                }
            },
        }
    }
}

/// An error that may ask for more room.
trait Short {
    fn required(&self) -> Option<usize>;
}

impl Short for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Short for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// The most that a record adds to its data: header, explicit nonce (TLS 1.2), tag and inner type
/// (TLS 1.3).
const RECORD_OVERHEAD: usize = 5 + 8 + 16 + 1;
