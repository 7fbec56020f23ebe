//! Three clients with a certificate each, a server that knows them by it, and what happens when
//! one of the certificates is replaced.

#[path = "greeter.rs"]
mod greeter;
#[path = "pki.rs"]
mod pki;

use std::error::Error;
use std::time::Duration;

use crate::Clients;
use crate::target::Target;
use pki::Pki;

pub(crate) fn show() -> Result<(), Box<dyn Error>> {
    let pki = Pki::new("mtls_client")?;
    let address = greeter::start(&pki)?;
    let url = format!("wss://localhost:{}/", address.port());
    let mut clients = Clients::new()?;
    for name in ["anna", "bert", "carl"] {
        let target = Target {
            label: name.to_owned(),
            url: url.clone(),
            ca: pki.ca(),
            identity: Some(pki.client(name)?),
            ..Target::default()
        };
        clients.connect(target, false)?;
    }
    until_answers(&mut clients, [1, 1, 1])?;
    println!("replacing the certificate of bert");
    pki.client("bert")?;
    until_answers(&mut clients, [1, 2, 1])?;
    clients.context.shutdown(Duration::from_secs(5));
    Ok(clients.context.run()?)
}

/// Turns until the clients have had that many answers.
fn until_answers(clients: &mut Clients, wanted: [usize; 3]) -> Result<(), Box<dyn Error>> {
    while clients.each(|client| client.answers) != wanted {
        clients.turn()?;
        let ended = clients.each(|client| client.ended.clone());
        ended.into_iter().flatten().collect::<Result<(), _>>()?;
    }
    Ok(())
}
