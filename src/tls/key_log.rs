//! The secrets of connections, for whoever has to look into their traffic; opt-in.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Is told the secrets of TLS connections, so that captured traffic can be decrypted.
///
/// Whoever has them reads, and in TLS 1.2 forges, the traffic: this is for debugging. Given to a
/// context with [`ContextConfig::key_log`](crate::ContextConfig::key_log); nothing is told without
/// that, whatever the environment says. Closures implement it.
pub trait KeyLog: Send + Sync {
    /// A secret came to be. `label` says which, in the words of NSS:
    /// `CLIENT_HANDSHAKE_TRAFFIC_SECRET`, `SERVER_TRAFFIC_SECRET_0`, and so on for TLS 1.3,
    /// `CLIENT_RANDOM` for TLS 1.2. `client_random` is what tells connections apart.
    ///
    /// It is called in the middle of a handshake, on the thread of the loop.
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]);
}

impl<F: Fn(&str, &[u8], &[u8]) + Send + Sync> KeyLog for F {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        self(label, client_random, secret);
    }
}

/// Appends secrets to a file in the format of NSS, which Wireshark and others read (what browsers
/// write to `SSLKEYLOGFILE`).
///
/// A line that cannot be written is left out: traffic goes on.
pub struct KeyLogFile {
    file: Mutex<File>,
}

impl KeyLogFile {
    /// Opens the file for appending; makes it, readable for its owner alone, if it is not there.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn append(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = Mutex::new(options.open(path)?);
        Ok(Self { file })
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", Hex(client_random), Hex(secret));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever follows the file wants whole lines, so each is one write.
        let _ = file.write_all(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLogFile").finish_non_exhaustive()
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A key log as all settings of a context share it.
#[derive(Clone)]
pub(crate) struct SharedKeyLog(Arc<dyn KeyLog>);

impl SharedKeyLog {
    pub(crate) fn new(log: impl KeyLog + 'static) -> Self {
        Self(Arc::new(log))
    }
}

impl rustls::KeyLog for SharedKeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        self.0.log(label, client_random, secret);
    }
}

impl fmt::Debug for SharedKeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLog")
    }
}
