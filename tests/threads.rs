//! `cancel_service`, the one call that may come from other threads, under all circumstances.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use real::{Host, loopback};
use wsloop::{
    CancelService, ClientConnectInfo, Close, CloseCause, Context, ContextConfig, Cx, Established,
    Protocol, Side, VhostConfig, VhostId, Wsi, WsiId,
};

const THREADS: usize = 16;
const CALLS: u64 = 300;

#[test]
fn a_context_moves_between_threads_and_its_handle_is_shared() {
    fn moves<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    moves::<Context>();
    is_shared::<CancelService>();
}

/// What every thread has called for, and what `on_wake` has seen of it.
#[derive(Default)]
struct Board {
    called: [AtomicU64; THREADS],
    seen: Mutex<[u64; THREADS]>,
    news: Condvar,
    looks: AtomicU64,
    finished: AtomicUsize,
    stop: AtomicBool,
}

impl Board {
    /// As `on_wake` does it: whatever was called for before it began is seen by it.
    fn look(&self) {
        let mut seen = self.seen.lock().unwrap();
        for (seen, called) in seen.iter_mut().zip(&self.called) {
            *seen = called.load(Ordering::SeqCst);
        }
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.news.notify_all();
    }

    fn call(&self, thread: usize, wake: &CancelService) -> u64 {
        let number = self.called[thread].fetch_add(1, Ordering::SeqCst) + 1;
        wake.cancel_service();
        number
    }

    /// Waits until that call was seen.
    fn wait(&self, thread: usize, number: u64) {
        let seen = self.seen.lock().unwrap();
        let unseen = |seen: &mut [u64; THREADS]| seen[thread] < number;
        let outcome = self
            .news
            .wait_timeout_while(seen, PATIENCE, unseen)
            .unwrap();
        assert!(
            !outcome.1.timed_out(),
            "call {number} of thread {thread} was lost"
        );
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst) == THREADS
    }
}

/// Ends a test that would hang otherwise; nothing depends on how long it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Threads that each call for something until they have done so often `enough`, and then wait for
/// the last call to be seen; with `acknowledged` for each of them.
fn callers(
    board: &Arc<Board>,
    wake: &CancelService,
    acknowledged: bool,
    enough: impl Fn(u64) -> bool + Clone + Send + 'static,
) -> Vec<JoinHandle<()>> {
    let call = |thread| {
        let (board, wake, enough) = (Arc::clone(board), wake.clone(), enough.clone());
        move || {
            let finish = Finish(&board, &wake);
            let mut number = 0;
            while !enough(number) {
                number = board.call(thread, &wake);
                if acknowledged {
                    board.wait(thread, number);
                } else {
                    thread::yield_now();
                }
            }
            board.wait(thread, number);
            drop(finish);
        }
    };
    (0..THREADS)
        .map(|thread| thread::spawn(call(thread)))
        .collect()
}

/// Counts a thread as finished, also when it fails: the loop must not wait for it then.
struct Finish<'a>(&'a Board, &'a CancelService);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::SeqCst);
        self.1.cancel_service();
    }
}

/// Looks at the board when it is woken. Dialled connections close themselves and are dialled
/// again, so that there is always one coming and one going.
struct Churn {
    board: Arc<Board>,
    dial: Option<(VhostId, u16)>,
    ended: Arc<AtomicUsize>,
}

impl Churn {
    fn dial(&self, cx: &mut Cx<'_>) {
        if let Some((vhost, port)) = self.dial {
            let info = ClientConnectInfo::new("127.0.0.1", port).unwrap();
            cx.client_connect(vhost, info).unwrap();
        }
    }
}

impl Protocol for Churn {
    type Session = Side;

    fn on_established(&mut self, wsi: &mut Wsi<'_>, _: &Established<'_>) -> Result<Side, Close> {
        if wsi.side() == Side::Client {
            wsi.close(Close::normal());
        }
        Ok(wsi.side())
    }

    fn on_closed(&mut self, cx: &mut Cx<'_>, _: WsiId, side: Side, cause: &CloseCause) {
        assert!(cause.is_clean() || self.board.is_finished(), "{cause}");
        if side == Side::Client && !self.board.is_finished() {
            self.ended.fetch_add(1, Ordering::SeqCst);
            self.dial(cx);
        }
    }

    fn on_wake(&mut self, _: &mut Cx<'_>) {
        self.board.look();
    }
}

/// Gives the other threads time to call while the loop is at its `on_wake`s.
struct Dawdle;

impl Protocol for Dawdle {
    type Session = ();

    fn on_established(&mut self, _: &mut Wsi<'_>, _: &Established<'_>) -> Result<(), Close> {
        Err(Close::normal())
    }

    fn on_wake(&mut self, _: &mut Cx<'_>) {
        for _ in 0..20 {
            thread::yield_now();
        }
    }
}

/// A context that churns that many connections at a time.
fn churning(board: &Arc<Board>, connections: usize) -> (Context, Arc<AtomicUsize>) {
    let mut context = Context::new(ContextConfig::new()).unwrap();
    let ended = Arc::new(AtomicUsize::new(0));
    let mut config = VhostConfig::new("localhost").listen(loopback());
    config.add_protocol("before", Dawdle);
    let churn = config.add_protocol(
        "churn",
        Churn {
            board: Arc::clone(board),
            dial: None,
            ended: Arc::clone(&ended),
        },
    );
    config.add_protocol("after", Dawdle);
    let config = config.default_protocol("churn");
    let vhost = context.create_vhost(config).unwrap();
    let port = context.listen_addrs(vhost)[0].port();
    context.with_protocol(churn, |churn, cx| {
        churn.dial = Some((vhost, port));
        for _ in 0..connections {
            churn.dial(cx);
        }
    });
    (context, ended)
}

#[test]
fn re_10_no_call_is_lost_while_the_loop_sleeps() {
    let board = Arc::new(Board::default());
    let (mut context, _) = churning(&board, 0);
    let wake = context.cancel_service_handle();
    let threads = callers(&board, &wake, true, |calls| calls == CALLS);
    run(&mut context, &board, threads);
}

#[test]
fn re_10_no_call_is_lost_while_connections_churn() {
    let board = Arc::new(Board::default());
    let (mut context, ended) = churning(&board, 20);
    let wake = context.cancel_service_handle();
    let threads = callers(&board, &wake, false, move |calls| {
        calls >= CALLS && ended.load(Ordering::SeqCst) >= 200
    });
    run(&mut context, &board, threads);
}

fn run(context: &mut Context, board: &Board, threads: Vec<JoinHandle<()>>) {
    while !board.is_finished() {
        // With nothing else going on, only the calls end this wait.
        context.service(None).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn re_10_calls_merge_and_a_heard_one_lets_the_loop_sleep_again() {
    let board = Arc::new(Board::default());
    let (mut context, _) = churning(&board, 0);
    let wake = context.cancel_service_handle();
    for round in 1..=3 {
        assert_eq!(board.call(0, &wake), 2 * round - 1);
        assert_eq!(board.call(0, &wake), 2 * round);
        assert!(
            context.next_deadline().is_some(),
            "there is something to do"
        );
        for _ in 0..3 {
            context.service(Some(Duration::ZERO)).unwrap();
        }
        assert_eq!(board.looks.load(Ordering::SeqCst), round);
        assert_eq!(context.next_deadline(), None);
    }
}

#[test]
fn re_10_calls_while_the_context_shuts_down_and_after_it_is_dropped_do_no_harm() {
    let board = Arc::new(Board::default());
    for round in 0..20 {
        let (mut context, ended) = churning(&board, 5);
        let wake = context.cancel_service_handle();
        let call = |thread| {
            let (board, wake) = (Arc::clone(&board), wake.clone());
            move || {
                while !board.stop.load(Ordering::SeqCst) {
                    board.call(thread, &wake);
                    thread::yield_now();
                }
            }
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| thread::spawn(call(thread)))
            .collect();
        while ended.load(Ordering::SeqCst) < 20 {
            context.service(Some(PATIENCE)).unwrap();
        }
        board.finished.store(THREADS, Ordering::SeqCst);
        if round % 2 == 0 {
            context.shutdown(Duration::from_millis(50));
            context.run().unwrap();
        }
        drop(context);
        let after = board.called[0].load(Ordering::SeqCst);
        while board.called[0].load(Ordering::SeqCst) < after + 10 {
            thread::yield_now();
        }
        board.stop.store(true, Ordering::SeqCst);
        for thread in threads {
            thread.join().unwrap();
        }
        wake.cancel_service();
        board.stop.store(false, Ordering::SeqCst);
        board.finished.store(0, Ordering::SeqCst);
    }
}

#[test]
fn a_context_can_go_on_in_another_thread() {
    let mut server = Host::server();
    let mut peer = server.open();
    let thread = thread::spawn(move || {
        peer.write(&real::masked(0x81, b"hello"));
        server.read(&mut peer, 7)
    });
    assert_eq!(thread.join().unwrap(), real::plain(0x81, b"hello"));
}
