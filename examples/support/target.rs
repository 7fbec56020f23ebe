//! Whom a client connects to, as a command line says it.

use std::error::Error;
use std::path::PathBuf;

use wsloop::tls::IdentityOptions;

use crate::args::Args;

/// Whom to connect to, whom to trust there, and what to show.
#[derive(Default)]
pub(crate) struct Target {
    /// What to call it in what is printed.
    pub(crate) label: String,
    pub(crate) url: String,
    /// Whose servers are good, and which of them are revoked.
    pub(crate) ca: PathBuf,
    pub(crate) crl: Option<PathBuf>,
    /// Certificate and key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) options: IdentityOptions,
}

impl Target {
    /// All of a command line; each begins with `--connect`.
    pub(crate) fn all_from(args: Args) -> Result<Vec<Self>, Box<dyn Error>> {
        let (before, targets) = args.split("--connect");
        if !before.is_empty() || targets.is_empty() {
            return Err("begin with --connect URL".into());
        }
        targets.into_iter().map(Self::from_args).collect()
    }

    fn from_args(mut args: Args) -> Result<Self, Box<dyn Error>> {
        let [url] = args.values::<String, 1>(["--connect"])?;
        let url = url.unwrap_or_default();
        let [ca, crl, cert, key] = args.values(["--ca", "--crl", "--cert", "--key"])?;
        let mut options = IdentityOptions::new();
        if args.switch("--out-of-date") {
            options = options.accept_out_of_date();
        }
        args.nothing_else()?;
        Ok(Self {
            label: url.clone(),
            url,
            ca: ca.ok_or("--ca PEM is missing")?,
            crl,
            identity: match (cert, key) {
                (Some(cert), Some(key)) => Some((cert, key)),
                (None, None) => None,
                _ => return Err("--cert and --key go together".into()),
            },
            options,
        })
    }
}
