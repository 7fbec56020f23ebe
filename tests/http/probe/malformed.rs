//! What is no request, or far too much of one.

use super::Want::{Refused, Served, Waits};
use super::{Case, Sent, case};

pub(super) const CASES: &[Case] = &[
    case("MAL-BINARY-GARBAGE", b"\x00\x8f\x13\xc6\xff\x01garbage\r\n\r\n", Refused(400), "9112 3"),
    Case { id: "MAL-LONG-URL", sent: Sent::Long(b"GET /", 100000, b"A", b" HTTP/1.1\r\nHost: a.test\r\n\r\n"), want: Refused(414), rule: "9110 15.5.15" },
    Case { id: "MAL-LONG-HEADER-VALUE", sent: Sent::Long(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Big: ", 100000, b"B", b"\r\n\r\n"), want: Refused(431), rule: "6585 5" },
    Case { id: "MAL-MANY-HEADERS", sent: Sent::Long(b"GET / HTTP/1.1\r\nHost: a.test\r\n", 10000, b"X-H: value\r\n", b"\r\n"), want: Refused(431), rule: "6585 5" },
    case("MAL-NUL-IN-URL", b"GET /\0test HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400), "9112 3.2"),
    case("MAL-CONTROL-CHARS-HEADER", b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Test: abc\x07\x08\x0bdef\r\n\r\n", Refused(400), "9110 5.5"),
    case("MAL-INCOMPLETE-REQUEST", b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Test: value", Waits, "9112 8"),
    case("MAL-EMPTY-REQUEST", b"", Waits, "nothing was asked"),
    Case { id: "MAL-LONG-HEADER-NAME", sent: Sent::Long(b"GET / HTTP/1.1\r\nHost: a.test\r\n", 100000, b"A", b": val\r\n\r\n"), want: Refused(431), rule: "6585 5" },
    Case { id: "MAL-LONG-METHOD", sent: Sent::Long(b"", 100000, b"A", b" / HTTP/1.1\r\nHost: a.test\r\n\r\n"), want: Refused(414), rule: "9112 3: the line is too long, whatever is in it; 501 or 400 are as good" },
    case("MAL-NON-ASCII-HEADER-NAME", b"GET / HTTP/1.1\r\nHost: a.test\r\nX-T\xc3\xabst: value\r\n\r\n", Refused(400), "9110 5.1"),
    case("MAL-NON-ASCII-URL", b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400), "9112 3.2"),
    case("MAL-CL-OVERFLOW", b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 99999999999999999999\r\n\r\n", Refused(400), "9110 8.6"),
    case("MAL-WHITESPACE-ONLY-LINE", b"   \r\n\r\n", Refused(400), "9112 3"),
    case("MAL-NUL-IN-HEADER-VALUE", b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Test: val\0ue\r\n\r\n", Refused(400), "9110 5.5"),
    case("MAL-CHUNK-SIZE-OVERFLOW", b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n", Refused(400), "9112 7.1"),
    case("MAL-H2-PREFACE", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(505), "9113 3.4"),
    case("MAL-CL-EMPTY", b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: \r\n\r\n", Refused(400), "9110 8.6"),
    case("MAL-CL-TAB-BEFORE-VALUE", b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length:\t5\r\n\r\nhello", Served(200, "hello"), "9110 5.6.3: a tab is optional white space"),
    case("MAL-URL-BACKSLASH", b"GET /path\\file HTTP/1.1\r\nHost: a.test\r\n\r\n", Served(200, "GET /path\\file\n"), "it has no meaning here, and is handed on as it is"),
    case("MAL-URL-OVERLONG-UTF8", b"GET /\xc0\xaf HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(400), "9112 3.2"),
    case("MAL-URL-PERCENT-NULL", b"GET /path%00.html HTTP/1.1\r\nHost: a.test\r\n\r\n", Served(200, "GET /path%00.html\n"), "nothing is decoded here"),
    case("MAL-URL-PERCENT-CRLF", b"GET /path%0d%0aX-Injected:%20true HTTP/1.1\r\nHost: a.test\r\n\r\n", Served(200, "GET /path%0d%0aX-Injected:%20true\n"), "nothing is decoded here"),
    Case { id: "MAL-CHUNK-EXT-64K", sent: Sent::Long(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=", 65536, b"a", b"\r\nhello\r\n0\r\n\r\n"), want: Refused(400), rule: "9112 7.1.1: extensions are bounded" },
    Case { id: "MAL-RANGE-OVERLAPPING", sent: Sent::Long(b"GET / HTTP/1.1\r\nHost: a.test\r\nRange: bytes=", 1000, b"0-,", b"0-\r\n\r\n"), want: Served(200, "GET /\n"), rule: "9110 14.2: ranges may be ignored" },
    case("MAL-POST-CL-HUGE-NO-BODY", b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 999999999\r\n\r\n", Refused(413), "9110 15.5.14: refused before it comes"),
];
