//! What the reader of a failed attempt can do about it, where its reason does not say so.

use std::io;

use super::{ConnectFailure, Deadline, DeadlineStage};

impl ConnectFailure {
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::NoneConnected(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Some("is the server running, and is the port right?")
            }
            Self::NoAddress | Self::Resolve(_) => {
                Some("is the name right? address(..) dials an IP address instead")
            }
            Self::Refused(refusal) if matches!(refusal.status, 200..=299 | 404) => {
                Some("no WebSocket is served there: is the path right?")
            }
            Self::Timeout(Deadline {
                stage: DeadlineStage::Tcp,
                ..
            }) => Some("is the address right, and does a firewall let it through?"),
            #[cfg(feature = "tls")]
            Self::Tls(error) => about_certificate(&error.failure),
            _ => None,
        }
    }
}

#[cfg(feature = "tls")]
const fn about_certificate(failure: &crate::tls::TlsFailure) -> Option<&'static str> {
    use crate::tls::{CertificateProblem, TlsFailure};

    let TlsFailure::Certificate(problem) = failure else {
        return None;
    };
    match problem {
        CertificateProblem::NotValidForName { .. } => {
            Some("dial it by a name of its certificate, or say which with verify_name(..)")
        }
        CertificateProblem::UnknownIssuer => {
            Some("add its authority to the vhost's Roots, or have the server send its whole chain")
        }
        _ => None,
    }
}
