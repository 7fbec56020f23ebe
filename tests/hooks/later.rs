//! Answers that come later, too late, twice, or never.

use std::time::Duration;

use wsloop::hook::{Grant, OnFailure};
use wsloop::{HookAnswer, HookChain, HookConfig, HookError, TimerTag};

use crate::support::{addr, masked, plain, request};
use crate::{Ids, Site, Told, says, status, text};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_hook_that_answers_later_holds_the_request_and_what_follows_it() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook);
    let (peer, answer) = site.send(&request("/"));
    peer.write(&masked(0x81, b"early")).unwrap();
    site.world.pass(SECOND);
    assert_eq!((answer.as_str(), text(&peer).as_str()), ("", ""));
    let id = ids.one();
    assert!(site.answer(id, Ok(HookAnswer::allow())));
    let answer = peer.read();
    let end = answer.len() - plain(0x81, b"early").len();
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    assert_eq!(answer[end..], plain(0x81, b"early"));
    assert!(!site.answer(id, Ok(HookAnswer::deny(403))), "it is decided");
    site.world.pass(SECOND * 20);
    assert_eq!(
        site.lines(),
        [
            "slow asked /",
            "filter /",
            "established / None",
            "text \"early\""
        ]
    );
}

#[test]
fn a_later_answer_can_do_all_that_an_immediate_one_can() {
    type Make = fn() -> Result<HookAnswer, HookError>;
    let cases: [(Make, u16); 5] = [
        (|| Ok(HookAnswer::allow()), 101),
        (|| Ok(HookAnswer::deny(451)), 451),
        (|| Ok(HookAnswer::Next), 410),
        (|| Err(HookError::new("lost it")), 503),
        (|| Ok(HookAnswer::Allow(Grant::new().subprotocol("x"))), 503),
    ];
    for (make, expected) in cases {
        let ids = Ids::default();
        let mut site = Site::new(|log| {
            HookChain::new()
                .hook("slow", Told::later("slow", log, &ids))
                .hook("end", says(|| Ok(HookAnswer::deny(410))))
        });
        let (peer, _) = site.send(&request("/"));
        assert!(site.answer(ids.one(), make()));
        assert_eq!(status(&text(&peer)), expected);
    }
}

#[test]
fn saying_later_again_buys_no_time() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook.deadline(SECOND * 2));
    let (peer, _) = site.send(&request("/"));
    let id = ids.one();
    site.world.pass(SECOND);
    assert!(site.answer(id, Ok(HookAnswer::Later)));
    site.world.pass(SECOND - Duration::from_millis(100));
    assert_eq!(text(&peer), "");
    site.world.pass(Duration::from_millis(100));
    assert_eq!(status(&text(&peer)), 503);
}

#[test]
fn a_hook_that_does_not_answer_in_time_fails_and_a_late_answer_is_harmless() {
    for (policy, expected) in [(OnFailure::Refuse, 503), (OnFailure::Next, 101)] {
        let ids = Ids::default();
        let mut site = Site::new(|log| {
            let slow = HookConfig::new("slow", Told::later("slow", log, &ids));
            HookChain::new()
                .with(slow.deadline(SECOND * 3).on_failure(policy))
                .hook("all", says(|| Ok(HookAnswer::allow())))
        });
        let (peer, _) = site.send(&request("/"));
        site.world.pass(SECOND * 3 - Duration::from_millis(100));
        assert_eq!(text(&peer), "");
        site.world.pass(Duration::from_millis(100));
        assert_eq!(status(&text(&peer)), expected);
        assert!(!site.answer(ids.one(), Ok(HookAnswer::deny(403))));
        let lines = site.lines();
        assert_eq!(
            lines[..3],
            [
                "slow asked /",
                "slow abandoned",
                "hook error slow: the answer of a hook took longer than 3s"
            ]
        );
    }
}

#[test]
fn the_answer_to_an_earlier_question_is_not_the_answer_to_the_next() {
    let ids = Ids::default();
    let mut site = Site::new(|log| {
        let first = HookConfig::new("first", Told::later("first", log, &ids));
        HookChain::new()
            .with(first.deadline(SECOND).on_failure(OnFailure::Next))
            .hook("second", Told::later("second", log, &ids))
    });
    let (peer, _) = site.send(&request("/"));
    site.world.pass(SECOND);
    let [first, second] = ids.take()[..] else {
        panic!("two questions");
    };
    assert!(!site.answer(first, Ok(HookAnswer::allow())), "late");
    assert_eq!(text(&peer), "");
    assert!(site.answer(second, Ok(HookAnswer::deny(402))));
    assert_eq!(status(&text(&peer)), 402);
}

#[test]
fn the_deadline_of_the_chain_ends_the_waiting_whatever_the_policies_say() {
    let ids = Ids::default();
    let mut site = Site::new(|log| {
        let mut chain = HookChain::new().deadline(SECOND * 7).otherwise_allow();
        for name in ["a", "b", "c", "d"] {
            let hook = HookConfig::new(name, Told::later(name, log, &ids));
            chain = chain.with(hook.deadline(SECOND * 3).on_failure(OnFailure::Next));
        }
        chain
    });
    let (peer, _) = site.send(&request("/"));
    site.world.pass(SECOND * 7 - Duration::from_millis(100));
    assert_eq!(text(&peer), "");
    site.world.pass(Duration::from_millis(100));
    assert_eq!(status(&text(&peer)), 503);
    assert_eq!(ids.take().len(), 3, "the fourth is not asked");
    let lines = site.lines();
    assert!(
        lines.contains(&"hook error c: the answers of the hooks took longer than 7s".to_owned()),
        "{lines:?}"
    );
}

#[test]
fn a_hook_without_a_deadline_waits_as_long_as_the_chain() {
    let ids = Ids::default();
    let mut site = Site::new(|log| {
        let slow = HookConfig::new("slow", Told::later("slow", log, &ids));
        HookChain::new()
            .with(slow.deadline(Duration::MAX))
            .deadline(Duration::MAX)
    });
    let (peer, _) = site.send(&request("/"));
    site.world.pass(SECOND * 300);
    assert_eq!(text(&peer), "");
    assert!(site.answer(ids.one(), Ok(HookAnswer::allow())));
    assert_eq!(status(&text(&peer)), 101);
    // The silence was not the client's.
    site.world.pass(SECOND * 20);
    peer.write(&masked(0x81, b"here")).unwrap();
    site.world.turn();
    assert_eq!(peer.read(), plain(0x81, b"here"));
}

#[test]
fn an_answer_in_the_turn_of_the_deadline_counts() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook.deadline(SECOND));
    let (peer, _) = site.send(&request("/"));
    site.world.net.advance(SECOND);
    assert!(site.answer(ids.one(), Ok(HookAnswer::allow())));
    assert_eq!(status(&text(&peer)), 101);
}

#[test]
fn an_answer_from_inside_the_question_is_refused_and_harmless() {
    let mut site = Site::new(|log| {
        let hook = Told::new("h", log, |cx, request| {
            let answered = cx.answer_hook(request.id(), Ok(HookAnswer::deny(400)));
            assert!(answered.is_err());
            Ok(HookAnswer::allow())
        });
        HookChain::new().hook("h", hook)
    });
    assert_eq!(status(&site.send(&request("/")).1), 101);
}

#[test]
fn a_lost_connection_is_noticed_at_the_answer() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook);
    let (peer, _) = site.send(&request("/"));
    drop(peer);
    site.world.pass(SECOND);
    site.answer(ids.one(), Ok(HookAnswer::allow()));
    site.world.turn();
    assert_eq!(site.world.context.connections(), 0);
}

#[test]
fn a_reset_is_noticed_at_once_and_the_hook_may_stop() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook);
    let (peer, _) = site.send(&request("/"));
    peer.reset();
    site.world.turn();
    assert_eq!(site.world.context.connections(), 0);
    assert!(!site.answer(ids.one(), Ok(HookAnswer::allow())));
    let expected = ["slow asked /", "slow abandoned", "refused connection reset"];
    assert_eq!(site.lines(), expected);
}

#[test]
fn a_vhost_that_is_destroyed_meanwhile_answers_503_and_takes_its_hooks_along() {
    let ids = Ids::default();
    let mut handle = None;
    let mut site = Site::new(|log| {
        let (hook, made) = HookConfig::with_handle("slow", Told::later("slow", log, &ids));
        handle = Some(made);
        HookChain::new().with(hook)
    });
    let handle = handle.unwrap();
    let (peer, _) = site.send(&request("/"));
    let timer = |_: &mut Told, cx: &mut wsloop::Cx<'_>| cx.set_timer(SECOND, TimerTag(1));
    assert!(
        site.world
            .context
            .with_hook(handle, timer)
            .flatten()
            .is_some()
    );
    assert!(site.world.context.hook(handle).is_some());
    site.world.context.destroy_vhost(site.world.vhost).unwrap();
    site.world.turn();
    assert_eq!(status(&text(&peer)), 503);
    drop(peer);
    site.world.pass(SECOND * 2);
    assert!(site.world.context.hook(handle).is_none());
    assert!(site.world.net.dial(addr()).is_err());
    let expected = [
        "slow asked /",
        "slow abandoned",
        "refused the context is shutting down or the vhost was destroyed",
    ];
    assert_eq!(site.world.log.take(), expected);
    assert_eq!(site.world.context.connections(), 0);
}

#[test]
fn a_shutdown_and_the_drop_of_the_context_abandon_what_waits() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook);
    let (peer, _) = site.send(&request("/"));
    site.world.context.shutdown(SECOND);
    site.world.turn();
    assert_eq!(status(&text(&peer)), 503);
    assert_eq!(site.lines()[..2], ["slow asked /", "slow abandoned"]);

    let mut site = Site::later(&ids, |hook| hook);
    let (_peer, _) = site.send(&request("/"));
    let log = site.world.log.clone();
    drop(site);
    let refused = "refused the context is shutting down or the vhost was destroyed";
    assert_eq!(log.take(), ["slow asked /", "slow abandoned", refused]);
}

#[test]
fn hooks_have_timers_and_are_woken() {
    let mut site = Site::new(|log| {
        let hook = Told::new("h", log, |cx, _| {
            cx.set_timer(SECOND, TimerTag(7));
            Ok(HookAnswer::allow())
        });
        HookChain::new().hook("h", hook)
    });
    let _peer = site.send(&request("/"));
    site.lines();
    site.world.pass(SECOND);
    assert_eq!(site.lines(), ["h timer 7"]);
    site.world.context.cancel_service_handle().cancel_service();
    site.world.turn();
    assert_eq!(site.world.log.count("h wake"), 1);
}

#[test]
fn a_thousand_requests_wait_at_once_and_each_gets_its_own_answer() {
    let ids = Ids::default();
    let mut site = Site::later(&ids, |hook| hook);
    let peers: Vec<_> = (0..1000)
        .map(|number| {
            let peer = site.world.net.dial(addr()).unwrap();
            peer.write(&request(&format!("/{number}"))).unwrap();
            if number % 100 == 99 {
                site.world.turn();
            }
            peer
        })
        .collect();
    site.world.turn();
    let questions = ids.take();
    assert_eq!(questions.len(), 1000);
    let asked = site.lines();
    let numbers = asked.iter().map(|line| {
        let number = line.strip_prefix("slow asked /").unwrap();
        number.parse::<usize>().unwrap()
    });
    for (number, id) in numbers.zip(questions).collect::<Vec<_>>().into_iter().rev() {
        let answer = match number % 3 {
            0 => Ok(HookAnswer::allow()),
            1 => Ok(HookAnswer::deny(403)),
            // Left to its deadline.
            _ => continue,
        };
        let handle = site.protocol;
        let context = &mut site.world.context;
        let done = context.with_protocol(handle, |_, cx| cx.answer_hook(id, answer));
        assert!(done.unwrap().is_ok());
    }
    site.world.pass(SECOND * 5);
    site.world.turn();
    for (number, peer) in peers.iter().enumerate() {
        let expected = [101, 403, 503][number % 3];
        assert_eq!(status(&text(peer)), expected, "{number}");
    }
    drop(peers);
    site.world.pass(SECOND * 6);
    assert_eq!(site.world.context.connections(), 0);
}

#[test]
fn every_question_is_answered_or_abandoned_whatever_happens() {
    for seed in 1..=20_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound as u64) as usize
        };
        let ids = Ids::default();
        let mut site = Site::new(|log| {
            let slow = |name| HookConfig::new(name, Told::later(name, log, &ids));
            HookChain::new()
                .with(slow("a").deadline(SECOND).on_failure(OnFailure::Next))
                .with(slow("b").deadline(SECOND * 2))
                .deadline(SECOND * 5 / 2)
        });
        let (mut peers, mut asked, mut answered) = (Vec::new(), Vec::new(), 0);
        for _ in 0..200 {
            match below(6) {
                0 | 1 => peers.push(site.send(&request("/")).0),
                2 if !peers.is_empty() => {
                    let peer = peers.swap_remove(below(peers.len()));
                    match below(2) {
                        0 => drop(peer),
                        _ => peer.reset(),
                    }
                }
                3 | 4 if !asked.is_empty() => {
                    // Some have been answered before, or are late.
                    let id = asked[below(asked.len())];
                    let answer = match below(5) {
                        0 => Ok(HookAnswer::allow()),
                        1 => Ok(HookAnswer::deny(401)),
                        2 => Ok(HookAnswer::Next),
                        3 => Ok(HookAnswer::Later),
                        _ => Err(HookError::new("failed")),
                    };
                    let counts = !matches!(answer, Ok(HookAnswer::Later));
                    answered += usize::from(site.answer(id, answer) && counts);
                }
                _ => site.world.pass(Duration::from_millis(300)),
            }
            asked.extend(ids.take());
        }
        drop(peers);
        site.world.pass(SECOND * 10);
        asked.extend(ids.take());
        let abandoned = site.world.log.count("a abandoned") + site.world.log.count("b abandoned");
        assert_eq!(answered + abandoned, asked.len(), "seed {seed}");
        assert_eq!(site.world.context.connections(), 0, "seed {seed}");
    }
}
