use super::*;
use crate::ws::deflate::Takeover;

fn both() -> DeflateConfig {
    DeflateConfig::new().context_takeover(Takeover::Both)
}

fn answer(config: &DeflateConfig, values: &[&str]) -> Option<String> {
    let values = values.iter().map(|value| value.as_bytes());
    answer_offers(values, config).map(|(_, value)| value)
}

/// The answer without the extension's name.
fn params(config: &DeflateConfig, offer: &str) -> Option<String> {
    let value = answer(config, &[offer])?;
    Some(value.strip_prefix("permessage-deflate").unwrap().to_owned())
}

const PMD: &str = "permessage-deflate";

#[test]
fn pm_02_a_server_answers_what_it_is_offered() {
    for (offer, expected) in [
        ("", ""),
        ("; client_max_window_bits", ""),
        ("; client_max_window_bits=15", ""),
        ("; client_max_window_bits=8", "; client_max_window_bits=8"),
        ("; client_max_window_bits=9", "; client_max_window_bits=9"),
        (
            "; client_max_window_bits=\"10\"",
            "; client_max_window_bits=10",
        ),
        (
            "; client_max_window_bits=\"1\\1\"",
            "; client_max_window_bits=11",
        ),
        ("; server_max_window_bits=8", "; server_max_window_bits=8"),
        ("; server_max_window_bits=15", "; server_max_window_bits=15"),
        (
            "; server_max_window_bits=\"15\"",
            "; server_max_window_bits=15",
        ),
        (
            ";server_max_window_bits = 12",
            "; server_max_window_bits=12",
        ),
        (
            "; server_no_context_takeover",
            "; server_no_context_takeover",
        ),
        (
            "; client_no_context_takeover",
            "; client_no_context_takeover",
        ),
        (
            "; client_max_window_bits=9;server_max_window_bits=10 ;\tclient_no_context_takeover;server_no_context_takeover",
            "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=9",
        ),
    ] {
        let got = params(&both(), &format!("{PMD}{offer}"));
        assert_eq!(got.as_deref(), Some(expected), "{offer}");
    }
}

#[test]
fn pm_02_an_offer_with_anything_wrong_is_declined() {
    let digits = format!("; server_max_window_bits={}", "1".repeat(300));
    for wrong in [
        "; server_max_window_bits",
        "; server_max_window_bits=",
        "; server_max_window_bits=\"\"",
        "; server_max_window_bits=0",
        "; server_max_window_bits=7",
        "; server_max_window_bits=16",
        "; server_max_window_bits=-1",
        "; server_max_window_bits=+9",
        "; server_max_window_bits=08",
        "; server_max_window_bits=015",
        "; server_max_window_bits=1",
        "; server_max_window_bits=1e1",
        "; server_max_window_bits=0x9",
        "; server_max_window_bits=15.0",
        "; server_max_window_bits=9 9",
        "; server_max_window_bits=\"9",
        "; server_max_window_bits=9\"",
        "; server_max_window_bits=\"9 \"",
        "; server_max_window_bits=\"\\\"",
        &digits,
        "; server_max_window_bits=9; server_max_window_bits=9",
        "; client_max_window_bits=7",
        "; client_max_window_bits=16",
        "; client_max_window_bits=",
        "; client_max_window_bits=abc",
        "; client_max_window_bits; client_max_window_bits",
        "; client_max_window_bits; client_max_window_bits=9",
        "; client_no_context_takeover=1",
        "; client_no_context_takeover=\"\"",
        "; client_no_context_takeover; client_no_context_takeover",
        "; server_no_context_takeover=true",
        "; server_no_context_takeover; server_no_context_takeover",
        "; Server_No_Context_Takeover",
        "; unknown",
        "; unknown=1",
        "; mode=\"a b\"",
        ";",
        "; ",
        ";;",
        "; =9",
        "; @",
        " server_no_context_takeover",
        "=9",
    ] {
        let offer = format!("{PMD}{wrong}");
        assert_eq!(answer(&both(), &[&offer]), None, "{offer}");
        // The next one is looked at all the same, wherever it stands.
        let fallback = Some(format!("{PMD}; server_no_context_takeover"));
        let next = format!("{PMD}; server_no_context_takeover");
        assert_eq!(answer(&both(), &[&offer, &next]), fallback, "{offer}");
        if wrong.matches('"').count() % 2 == 0 && !wrong.ends_with("\\\"") {
            let list = format!("{offer}, {next}");
            assert_eq!(answer(&both(), &[&list]), fallback, "{list}");
        }
    }
}

#[test]
fn the_first_offer_that_can_be_accepted_is() {
    for (values, expected) in [
        (vec![], None),
        (vec![""], None),
        (vec![",, ,"], None),
        (vec!["permessage-bzip2"], None),
        (vec!["x-webkit-deflate-frame"], None),
        (vec!["permessage-deflate2"], None),
        (vec!["Permessage-Deflate"], None),
        (
            vec!["foo; a=\"permessage-deflate, permessage-deflate\""],
            None,
        ),
        (vec!["foo, permessage-deflate"], Some("")),
        (vec!["foo; bar=\"x,y\", permessage-deflate"], Some("")),
        (vec!["foo; bar=\"x\\\",y\", permessage-deflate"], Some("")),
        (vec!["@, permessage-deflate"], Some("")),
        (vec![",permessage-deflate,"], Some("")),
        (vec!["foo", "permessage-deflate"], Some("")),
        (
            vec!["permessage-deflate; server_max_window_bits=10, permessage-deflate"],
            Some("; server_max_window_bits=10"),
        ),
        (
            vec![
                "permessage-deflate",
                "permessage-deflate; server_max_window_bits=10",
            ],
            Some(""),
        ),
        (
            vec!["permessage-deflate; nonsense, permessage-deflate; client_max_window_bits=11"],
            Some("; client_max_window_bits=11"),
        ),
    ] {
        let expected = expected.map(|params| format!("{PMD}{params}"));
        assert_eq!(answer(&both(), &values), expected, "{values:?}");
    }
}

#[test]
fn hs_21_so_many_offers_are_looked_at_and_no_more() {
    let bad = "permessage-deflate; x, ".repeat(15);
    assert!(answer(&both(), &[&format!("{bad}{PMD}")]).is_some());
    let bad = "permessage-deflate; x, ".repeat(16);
    assert_eq!(answer(&both(), &[&format!("{bad}{PMD}")]), None);
}

#[test]
fn a_server_asks_for_what_it_is_set_to() {
    let none = DeflateConfig::new();
    let server = none.context_takeover(Takeover::Server);
    let small = both().server_max_window_bits(10).unwrap();
    let small = small.client_max_window_bits(9).unwrap();
    for (config, offer, expected) in [
        (
            none,
            "",
            "; server_no_context_takeover; client_no_context_takeover",
        ),
        (server, "", "; client_no_context_takeover"),
        (small, "", "; server_max_window_bits=10"),
        (
            small,
            "; client_max_window_bits",
            "; server_max_window_bits=10; client_max_window_bits=9",
        ),
        (
            small,
            "; client_max_window_bits=8; server_max_window_bits=9",
            "; server_max_window_bits=9; client_max_window_bits=8",
        ),
        (
            small,
            "; client_max_window_bits=12; server_max_window_bits=11",
            "; server_max_window_bits=10; client_max_window_bits=9",
        ),
    ] {
        let got = params(&config, &format!("{PMD}{offer}"));
        assert_eq!(got.as_deref(), Some(expected), "{offer}");
    }
}

fn check(config: &DeflateConfig, values: &[&str]) -> Result<Option<DeflateParams>, ExtensionError> {
    check_answer(values.iter().map(|value| value.as_bytes()), config)
}

#[test]
fn a_client_takes_what_answers_its_offer() {
    let agreed = |server, client, server_bits, client_bits| DeflateParams {
        server_no_context_takeover: server,
        client_no_context_takeover: client,
        server_max_window_bits: server_bits,
        client_max_window_bits: client_bits,
    };
    for (params, expected) in [
        ("", agreed(false, false, 15, 15)),
        ("; server_no_context_takeover", agreed(true, false, 15, 15)),
        ("; client_no_context_takeover", agreed(false, true, 15, 15)),
        ("; server_max_window_bits=8", agreed(false, false, 8, 15)),
        ("; client_max_window_bits=8", agreed(false, false, 15, 8)),
        (
            "; client_max_window_bits=\"12\"",
            agreed(false, false, 15, 12),
        ),
        ("; client_max_window_bits=15", agreed(false, false, 15, 15)),
    ] {
        let got = check(&both(), &[&format!("{PMD}{params}")]);
        assert_eq!(got, Ok(Some(expected)), "{params}");
    }
    assert_eq!(check(&both(), &[]), Ok(None));
    assert_eq!(check(&both(), &["", " , "]), Ok(None));
    let small = both().client_max_window_bits(10).unwrap();
    let got = check(&small, &[PMD]).unwrap().unwrap();
    assert_eq!(got.client_max_window_bits, 10, "the client keeps its word");
    let none = DeflateConfig::new();
    let got = check(&none, &["permessage-deflate; server_no_context_takeover"]);
    assert!(got.unwrap().unwrap().client_no_context_takeover);
}

#[test]
fn pm_02_pm_03_an_answer_to_something_else_is_refused() {
    use ExtensionError as E;

    let small = both().client_max_window_bits(10).unwrap();
    let small = small.server_max_window_bits(11).unwrap();
    let none = DeflateConfig::new();
    let name = |text: &str| text.to_owned();
    let more = |name, bits, asked| E::TooManyBits { name, bits, asked };
    let ok = "; server_max_window_bits=11";
    for (config, values, error) in [
        (both(), vec!["foo"], E::NotOffered(name("foo"))),
        (both(), vec![PMD, "foo"], E::NotOffered(name("foo"))),
        (both(), vec![PMD, PMD], E::Twice),
        (
            both(),
            vec!["permessage-deflate, permessage-deflate"],
            E::Twice,
        ),
        (
            both(),
            vec!["permessage-deflate;"],
            E::Malformed(name("permessage-deflate;")),
        ),
        (both(), vec!["@"], E::Malformed(name("@"))),
        (both(), vec!["permessage-deflate; x"], E::Unknown(name("x"))),
        (
            both(),
            vec!["permessage-deflate; server_max_window_bits"],
            E::Value(SERVER_BITS),
        ),
        (
            both(),
            vec!["permessage-deflate; server_max_window_bits=16"],
            E::Value(SERVER_BITS),
        ),
        (
            both(),
            vec!["permessage-deflate; client_max_window_bits"],
            E::Value(CLIENT_BITS),
        ),
        (
            both(),
            vec!["permessage-deflate; client_max_window_bits=7"],
            E::Value(CLIENT_BITS),
        ),
        (
            both(),
            vec!["permessage-deflate; client_no_context_takeover=1"],
            E::Value(CLIENT_TAKEOVER),
        ),
        (
            both(),
            vec!["permessage-deflate; client_no_context_takeover; client_no_context_takeover"],
            E::Duplicate(CLIENT_TAKEOVER),
        ),
        (
            both(),
            vec!["permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"],
            E::Duplicate(SERVER_BITS),
        ),
        (none, vec![PMD], E::Missing(SERVER_TAKEOVER)),
        (small, vec![PMD], E::Missing(SERVER_BITS)),
        (
            small,
            vec!["permessage-deflate; server_max_window_bits=12"],
            more(SERVER_BITS, 12, 11),
        ),
        (
            small,
            vec!["permessage-deflate; server_max_window_bits=11; client_max_window_bits=11"],
            more(CLIENT_BITS, 11, 10),
        ),
    ] {
        assert_eq!(check(&config, &values), Err(error), "{values:?}");
    }
    assert!(check(&small, &[&format!("{PMD}{ok}")]).is_ok());
}

#[test]
fn every_offer_is_understood_by_our_own_server_and_its_answer_by_the_client() {
    let takeovers = [
        Takeover::None,
        Takeover::Client,
        Takeover::Server,
        Takeover::Both,
    ];
    let configs = || {
        takeovers.iter().flat_map(|&takeover| {
            (8..=15_u8).flat_map(move |server| {
                (8..=15_u8).step_by(3).map(move |client| {
                    let config = DeflateConfig::new().context_takeover(takeover);
                    let config = config.server_max_window_bits(server).unwrap();
                    config.client_max_window_bits(client).unwrap()
                })
            })
        })
    };
    for ours in configs() {
        for theirs in configs().step_by(5) {
            let offer = offer(&ours);
            let (server, value) = answer_offers([offer.as_bytes()], &theirs).unwrap();
            let client = check(&ours, &[&value]).unwrap().unwrap();
            // What one side thinks that the other may do, the other thinks, too, or does less.
            assert_eq!(
                client.server_no_context_takeover,
                server.server_no_context_takeover
            );
            assert_eq!(client.server_max_window_bits, server.server_max_window_bits);
            assert!(client.client_no_context_takeover >= server.client_no_context_takeover);
            assert!(client.client_max_window_bits <= server.client_max_window_bits);
        }
    }
}
