//! Command lines of the examples: options with a value, switches, and one word of their own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every example uses another part of it"
)]

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// What has not been asked for yet. Paths need not be UTF-8.
pub struct Args(Vec<OsString>);

impl Args {
    pub fn new() -> Self {
        Self(std::env::args_os().skip(1).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The arguments that begin with each `option`, and those before the first one.
    pub fn split(self, option: &str) -> (Self, Vec<Self>) {
        let mut parts = vec![Self(Vec::new())];
        for arg in self.0 {
            if arg == option {
                parts.push(Self(Vec::new()));
            }
            parts
                .last_mut()
                .into_iter()
                .for_each(|part| part.0.push(arg.clone()));
        }
        (parts.remove(0), parts)
    }

    /// Whether `switch` is there.
    pub fn switch(&mut self, switch: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|arg| arg != switch);
        self.0.len() < before
    }

    /// The values behind these options, where they are there.
    pub fn values<T: Value, const N: usize>(
        &mut self,
        options: [&str; N],
    ) -> Result<[Option<T>; N], String> {
        let mut values = [const { None }; N];
        for (option, value) in options.into_iter().zip(&mut values) {
            while let Some(at) = self.0.iter().position(|arg| arg == option) {
                if at + 1 == self.0.len() {
                    return Err(format!("{option} wants a value"));
                }
                let said = self.0.drain(at..at + 2).nth(1).unwrap_or_default();
                *value = Some(T::from_os(said).map_err(|said| not_text(&said))?);
            }
        }
        Ok(values)
    }

    /// The word that is left when the options have been taken, if there is one.
    pub fn word(mut self) -> Result<Option<String>, String> {
        let option = |arg: &OsString| arg.as_encoded_bytes().starts_with(b"-");
        let word = self.0.iter().position(|arg| !option(arg));
        let word = word.map(|at| self.0.remove(at));
        self.nothing_else()?;
        word.map(|word| word.into_string().map_err(|word| not_text(&word)))
            .transpose()
    }

    /// For when all has been taken.
    pub fn nothing_else(self) -> Result<(), String> {
        match self.0.first() {
            Some(odd) => Err(format!(
                "{} is no option of this example; the options are at the head of its source",
                odd.to_string_lossy()
            )),
            None => Ok(()),
        }
    }

    /// The same, as an address and port.
    pub fn address(self, default: &str) -> Result<SocketAddr, String> {
        let word = self.word()?.unwrap_or_else(|| default.to_owned());
        let address = word.parse();
        address.map_err(|_| format!("{word:?} is not an address and port, like {default}"))
    }
}

/// What an option can be followed by.
pub trait Value: Sized {
    /// The value, or the argument back that is none.
    fn from_os(said: OsString) -> Result<Self, OsString>;
}

impl Value for String {
    fn from_os(said: OsString) -> Result<Self, OsString> {
        said.into_string()
    }
}

impl Value for PathBuf {
    fn from_os(said: OsString) -> Result<Self, OsString> {
        Ok(said.into())
    }
}

fn not_text(said: &OsString) -> String {
    format!("{} is not text in UTF-8", said.to_string_lossy())
}

/// The number that an option was given, or `default`.
pub fn number<T: FromStr>(option: &str, said: Option<String>, default: T) -> Result<T, String> {
    said.map_or(Ok(default), |said| {
        let number = said.parse();
        number.map_err(|_| format!("{option} {said}: say a number"))
    })
}

/// Prints a line. What a server has to say must not end it when nobody can read it any more, as
/// `println!` would: it panics when the disk is full, or the reader of the pipe is gone.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The same for standard error, and so in place of `eprintln!`.
pub fn warn(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ends an example: with status 0, or with 1 and one line that says what was wrong.
pub fn exit(example: &str, outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(format_args!("{example}: {error}"));
            ExitCode::FAILURE
        }
    }
}
