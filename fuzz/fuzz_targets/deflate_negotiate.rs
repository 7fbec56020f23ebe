//! Values of `Sec-WebSocket-Extensions`: what a server answers is what its own client takes, and
//! nothing that a stranger answers gets past a client that did not ask for it.
//!
//! The first byte chooses the configuration; header values are separated by line feeds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsloop::ws::deflate::{answer_offers, check_answer, offer};
use wsloop::{DeflateConfig, DeflateParams, Takeover};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    let config = config(choice);
    let values = || bytes.split(|&byte| byte == b'\n');
    if let Some((params, answer)) = answer_offers(values(), &config) {
        assert!(answer.len() < 160);
        check(&params);
        assert!(params.server_max_window_bits <= bits(choice >> 2));
        // It means to a client that would take anything what it means to the server.
        let all = DeflateConfig::new().context_takeover(Takeover::Both);
        let read = check_answer([answer.as_bytes()], &all);
        assert_eq!(read, Ok(Some(params)), "{answer}");
    }
    if let Ok(Some(params)) = check_answer(values(), &config) {
        check(&params);
        assert!(params.server_max_window_bits <= bits(choice >> 2));
        assert!(params.client_max_window_bits <= bits(choice >> 5));
        if matches!(choice % 4, 0 | 1) {
            assert!(params.server_no_context_takeover);
        }
        if matches!(choice % 4, 0 | 2) {
            assert!(params.client_no_context_takeover);
        }
    }
    let offer = offer(&config);
    assert!(answer_offers([offer.as_bytes()], &config).is_some());
});

fn config(choice: u8) -> DeflateConfig {
    let takeover = match choice % 4 {
        0 => Takeover::None,
        1 => Takeover::Client,
        2 => Takeover::Server,
        _ => Takeover::Both,
    };
    let config = DeflateConfig::new().context_takeover(takeover);
    let config = config.server_max_window_bits(bits(choice >> 2));
    let config = config.and_then(|config| config.client_max_window_bits(bits(choice >> 5)));
    config.expect("8 to 15")
}

fn bits(choice: u8) -> u8 {
    8 + choice % 8
}

fn check(params: &DeflateParams) {
    assert!((8..=15).contains(&params.server_max_window_bits));
    assert!((8..=15).contains(&params.client_max_window_bits));
}
