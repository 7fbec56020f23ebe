//! Command lines of the examples: options with a value, switches, and one word of their own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every example uses another part of it"
)]

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

/// What has not been asked for yet.
pub struct Args(Vec<String>);

impl Args {
    pub fn new() -> Self {
        Self(std::env::args().skip(1).collect())
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
    pub fn values<T: From<String>, const N: usize>(
        &mut self,
        options: [&str; N],
    ) -> Result<[Option<T>; N], String> {
        let mut values = [const { None }; N];
        for (option, value) in options.into_iter().zip(&mut values) {
            while let Some(at) = self.0.iter().position(|arg| arg == option) {
                if at + 1 == self.0.len() {
                    return Err(format!("{option} wants a value"));
                }
                *value = self.0.drain(at..at + 2).nth(1).map(T::from);
            }
        }
        Ok(values)
    }

    /// The word that is left when the options have been taken, if there is one.
    pub fn word(mut self) -> Result<Option<String>, String> {
        let word = self.0.iter().position(|arg| !arg.starts_with('-'));
        let word = word.map(|at| self.0.remove(at));
        self.nothing_else()?;
        Ok(word)
    }

    /// For when all has been taken.
    pub fn nothing_else(self) -> Result<(), String> {
        match self.0.first() {
            Some(odd) => Err(format!("{odd} is no option of this example")),
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

/// Ends an example: with status 0, or with 1 and one line that says what was wrong.
pub fn exit(example: &str, outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{example}: {error}");
            ExitCode::FAILURE
        }
    }
}
