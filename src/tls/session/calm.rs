//! What a session does in nearly every visit: application data, in whole records, both ways.

use super::{Engine, Received, Session};
use crate::tls::failure::TlsFailure;
use crate::tls::tap::Boundary;
use crate::tls::unbuffered::{self, Odd, Place};

impl Session {
    /// As [`receive`](Self::receive) for a session that [is calm](Self::is_calm). What is not
    /// application data in whole records is for [`received_oddly`](Self::received_oddly).
    #[inline(always)]
    pub(crate) fn receive_calmly(
        &mut self,
        input: &mut [u8],
        place: &mut Place<'_>,
        plain: &mut Vec<u8>,
    ) -> Result<(), Box<Odd>> {
        // rustls moves what it works on.
        let mut boundary = Boundary::default();
        boundary.feed(input);
        let opened = match self.engine.as_deref_mut() {
            Some(Engine::Server(server)) => unbuffered::open(server, input, place, plain),
            Some(Engine::Client(client)) => unbuffered::open(client, input, place, plain),
            None => Ok(()),
        };
        opened.map_err(|mut odd| {
            odd.boundary = boundary;
            odd
        })
    }

    /// The rest of [`receive_calmly`](Self::receive_calmly).
    #[cold]
    #[inline(never)]
    pub(crate) fn received_oddly(
        &mut self,
        odd: Odd,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Received, TlsFailure> {
        out.extend(odd.out);
        self.unsettled().incoming = odd.boundary;
        let kept = self.conclude(odd.turn, input.len()).and_then(|used| {
            let left = input.get(used..).unwrap_or_default();
            self.unsettled().stash.extend_from_slice(left);
            self.check_stash()
        });
        let kept = kept.map_err(|stop| self.fail(stop, out));
        self.settle();
        kept.map(|()| Received {
            established_now: false,
            closed_by_peer: self.is_closed_by_peer(),
        })
    }

    /// As [`seal_into`](Self::seal_into) for a session that [is calm](Self::is_calm). `None` also
    /// after an error, which `seal` finds again.
    #[inline(always)]
    pub(crate) fn seal_calmly(&mut self, plaintext: &[u8], room: &mut [u8]) -> Option<usize> {
        let result = match self.engine.as_deref_mut() {
            Some(Engine::Server(server)) if self.unsettled.is_none() => {
                unbuffered::seal_into(server, &mut [], plaintext, room)
            }
            _ => return self.seal_into(plaintext, room).ok().flatten(),
        };
        if result.is_err() {
            self.seal_failed();
        }
        result.ok().flatten()
    }

    #[cold]
    fn seal_failed(&mut self) {
        self.unsettled().closed_by_us = true;
    }
}
