//! The examples do what their head comments say. `cargo test` builds them; when only this binary
//! is asked for, `cargo build --examples` has to come first.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use real::masked;

#[test]
fn a_worker_threads_values_reach_the_client_in_order() {
    let said = run("from_another_thread");
    let values: Vec<_> = said.lines().take(5).collect();
    assert_eq!(values, [1, 2, 3, 4, 5].map(|n| format!("Text(\"{n}\")")));
    assert_eq!(
        said.lines().nth(5),
        Some("closed by the peer, code 1000, clean")
    );
}

#[test]
fn a_context_works_inside_calloop() {
    let said = run("inside_another_loop");
    assert!(said.starts_with("answered \"hello\" after "), "{said}");
}

#[test]
fn a_context_works_inside_tokio() {
    assert_eq!(run("inside_tokio"), "answered \"hello\"\n");
}

/// A file name need not be UTF-8, and what is none of the options is named.
#[test]
fn arguments_that_are_not_text_are_told_of_and_end_nothing_else() {
    use std::os::unix::ffi::OsStrExt;

    let odd = std::ffi::OsStr::from_bytes(b"--odd\xff");
    for name in ["echo_server", "chat"] {
        for args in [[odd], ["nonsense".as_ref()]] {
            let output = example(name).args(args).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.starts_with(&format!("{name}: ")), "{said}");
        }
    }
}

/// What an example that ends by itself says, if it ends well.
fn run(name: &str) -> String {
    let output = example(name).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn example(name: &str) -> Command {
    let here = std::env::current_exe().unwrap();
    let path = here
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run cargo build --examples",
        path.display()
    );
    Command::new(path)
}

#[test]
fn the_chat_room_shows_who_comes_speaks_and_goes() {
    let chat = Chat::start();
    let mut one = chat.join("/tea");
    assert_eq!(one.line(), "* guest-1 joined");
    let mut elsewhere = chat.join("/coffee");
    assert_eq!(elsewhere.line(), "* guest-2 joined");
    let mut two = chat.join("/tea");
    assert_eq!(one.line(), "* guest-3 joined");
    assert_eq!(two.line(), "* guest-3 joined");
    two.say("good evening");
    assert_eq!(one.line(), "guest-3: good evening");
    assert_eq!(two.line(), "guest-3: good evening");
    drop(two);
    assert_eq!(one.line(), "* guest-3 left");
    // Nothing of that was for the other room.
    elsewhere.say("anybody?");
    assert_eq!(elsewhere.line(), "guest-2: anybody?");
}

#[test]
fn the_chat_drops_who_reads_too_slowly_and_keeps_the_others() {
    let chat = Chat::start();
    let mut slow = chat.join("/");
    let mut fast = chat.join("/");
    assert_eq!(fast.line(), "* guest-2 joined");
    let long = "x".repeat(4000);
    // More than the system and the server together keep for one who does not read.
    for _ in 0..4000 {
        fast.say(&long);
        let line = fast.line();
        assert!(
            line == format!("guest-2: {long}") || line == "* guest-1 left",
            "{line:.40}"
        );
    }
    let close = loop {
        let (first, payload) = slow.frame();
        if first == 0x88 {
            break payload;
        }
    };
    assert_eq!(close, b"\x03\xf5reading too slowly");
}

#[test]
fn the_chat_serves_its_page_to_a_browser() {
    let chat = Chat::start();
    let mut stream = chat.connect();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        chat.addr
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(
        response.contains("Content-Type: text/html; charset=utf-8\r\n"),
        "{response}"
    );
    for id in ["log", "text", "send", "status", "form", "room"] {
        assert!(
            response.contains(&format!("id=\"{id}\"")),
            "no element {id}"
        );
    }
}

/// A running chat server.
struct Chat {
    process: Child,
    addr: String,
}

impl Chat {
    fn start() -> Self {
        let mut command = example("chat");
        let spawned = command.arg("127.0.0.1:0").stdout(Stdio::piped()).spawn();
        let mut process = spawned.unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("chatting on http://").unwrap();
        let addr = addr.trim_end_matches('/').to_owned();
        Self { process, addr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    fn join(&self, room: &str) -> Guest {
        let mut stream = self.connect();
        let request = String::from_utf8(real::REQUEST.to_vec()).unwrap();
        let request = request.replacen("/chat", room, 1);
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Guest { stream }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Guest {
    stream: BufReader<TcpStream>,
}

impl Guest {
    fn say(&mut self, line: &str) {
        let frame = masked(0x81, line.as_bytes());
        self.stream.get_mut().write_all(&frame).unwrap();
    }

    fn line(&mut self) -> String {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x81);
        String::from_utf8(payload).unwrap()
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.stream.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }
}
