//! Fields that look like others, cookies, conditions: what the library hands on unchanged.

use super::Want::{Refused, Says, Served};
use super::{Case, Sent, case};

pub(super) const CASES: &[Case] = &[
    case("NORM-UNDERSCORE-CL", b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nContent_Length: 99\r\n\r\nhello world", Served(200, "POST /echo\nHost: a.test\nContent-Length: 11\nContent_Length: 99\nhello world"), "9110 5.1: handed on under its own name, which is not Content-Length"),
    case("NORM-SP-BEFORE-COLON-CL", b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nContent-Length : 5\r\n\r\nhello world", Refused(400), "9112 5.1"),
    case("NORM-TAB-IN-NAME", b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nContent\tLength: 99\r\n\r\nhello world", Refused(400), "9110 5.1"),
    case("NORM-CASE-TE", b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nTRANSFER-ENCODING: chunked\r\n\r\nhello world", Refused(400), "9112 6.1, 6.3: both lengths are an attack"),
    case("NORM-UNDERSCORE-TE", b"POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\nTransfer_Encoding: chunked\r\n\r\nhello world", Served(200, "POST /echo\nHost: a.test\nContent-Length: 11\nTransfer_Encoding: chunked\nhello world"), "9110 5.1: as above"),
    case("COOK-ECHO", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: foo=bar\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: foo=bar\n"), "6265 5.4: the application's business"),
    Case { id: "COOK-OVERSIZED", sent: Sent::Long(b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: big=", 65536, b"A", b"\r\n\r\n"), want: Refused(431), rule: "6585 5" },
    case("COOK-EMPTY", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: \r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: \n"), "6265 5.4: the application's business"),
    case("COOK-NUL", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: foo=\0bar\r\n\r\n", Refused(400), "9110 5.5"),
    case("COOK-CONTROL-CHARS", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: foo=\x01\x02\x03\r\n\r\n", Refused(400), "9110 5.5"),
    Case { id: "COOK-MANY-PAIRS", sent: Sent::Long(b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: ", 999, b"k=v; ", b"k=v\r\n\r\n"), want: Says(200, "Content-Length: 5030"), rule: "6265 5.4" },
    case("COOK-MALFORMED", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: ===;;;\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: ===;;;\n"), "6265 5.4: the application's business"),
    case("COOK-MULTI-HEADER", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: a=1\nCookie: b=2\n"), "6265 5.4: the application's business"),
    case("COOK-PARSED-BASIC", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: foo=bar; x=y\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: foo=bar; x=y\n"), "6265 5.4: the application's business"),
    case("COOK-PARSED-MULTI", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: a=1; b=2; c=3\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: a=1; b=2; c=3\n"), "6265 5.4: the application's business"),
    case("COOK-PARSED-EMPTY-VAL", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: foo=\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: foo=\n"), "6265 5.4: the application's business"),
    case("COOK-PARSED-SPECIAL", b"GET /echo HTTP/1.1\r\nHost: a.test\r\nCookie: a=hello world; b=x=y\r\n\r\n", Served(200, "GET /echo\nHost: a.test\nCookie: a=hello world; b=x=y\n"), "6265 5.4: the application's business"),
    case("CAP-IMS-FUTURE", b"GET /page HTTP/1.1\r\nHost: a.test\r\nIf-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT\r\n\r\n", Served(200, "a page\n"), "9110 13.1.3"),
    case("CAP-IMS-INVALID", b"GET /page HTTP/1.1\r\nHost: a.test\r\nIf-Modified-Since: not-a-date\r\n\r\n", Served(200, "a page\n"), "9110 13.1.3"),
    case("CAP-INM-UNQUOTED", b"GET /page HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: abc\r\n\r\n", Served(200, "a page\n"), "9110 8.8.3"),
    case("CAP-INM-WILDCARD", b"GET /page HTTP/1.1\r\nHost: a.test\r\nIf-None-Match: *\r\n\r\n", Served(200, "a page\n"), "9110 13.1.2 would have 304 where validators are known; a fixed response has none, and its 200 is right for all clients"),
];

/// Cases that need a resource with validators, which is a handler's business, with the reason.
pub(super) const NOT_APPLICABLE: &[(&str, &str)] = &[
    ("CAP-ETAG-304", "a fixed response has no entity tag"),
    ("CAP-ETAG-IN-304", "a fixed response has no entity tag"),
    ("CAP-ETAG-WEAK", "a fixed response has no entity tag"),
    ("CAP-INM-PRECEDENCE", "a fixed response has no entity tag"),
    (
        "CAP-LAST-MODIFIED-304",
        "a fixed response has no date of its own",
    ),
];
