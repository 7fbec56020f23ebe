//! `--client-auth` of the examples: who is asked for a certificate, and which certificates are good.

use std::error::Error;

use wsloop::tls::{ClientAuth, ClientSelector, ClientTrust, RevocationLists, Roots};

use crate::pki::ServerFiles;

pub(crate) fn client_auth(
    asked: Option<&str>,
    files: &ServerFiles,
) -> Result<ClientAuth, Box<dyn Error>> {
    let Some(asked) = asked.filter(|asked| *asked != "none") else {
        return Ok(ClientAuth::None);
    };
    let ca = files
        .client_ca
        .as_ref()
        .ok_or("--client-auth needs --client-ca PEM")?;
    let mut trust = ClientTrust::new(Roots::from_pem_file(ca)?);
    if let Some(crl) = &files.crl {
        trust = trust.revocation_lists(RevocationLists::from_pem_file(crl)?);
    }
    match asked {
        "optional" => Ok(ClientAuth::Optional(trust)),
        "required" => Ok(ClientAuth::Required(trust)),
        "browsers" => Ok(ClientAuth::OptionalIf(
            ClientSelector::not_a_browser(),
            trust,
        )),
        _ => Err("--client-auth: say none, optional, required or browsers".into()),
    }
}
