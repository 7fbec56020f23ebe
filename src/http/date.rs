//! Dates as HTTP writes them (RFC 9110 section 5.6.7), as whole seconds since 1970-01-01T00:00:00Z.

use std::time::{Duration, UNIX_EPOCH};

/// Writes a date in the form that all senders use, `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// A date after the year 9999, which the form has no room for, is written as its last second.
pub fn format_date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND)))
}

/// Reads a date in any of the three forms that recipients must know: IMF-fixdate, RFC 850, asctime.
///
/// `None` for anything else, for dates that the calendar does not have, and for dates before 1970:
/// a condition with such a date is ignored (RFC 9110 section 13.1.3).
pub fn parse_date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::super::test_support::Rng;
    use super::*;

    #[test]
    fn the_three_forms_of_rfc_9110_are_one_date() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        assert_eq!(format_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn known_seconds_have_known_names() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(format_date(seconds), text);
            assert_eq!(parse_date(text.as_bytes()), Some(seconds));
        }
    }

    #[test]
    fn a_date_too_late_for_the_form_is_its_last_second() {
        assert_eq!(format_date(u64::MAX), format_date(LAST_SECOND));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut rng = Rng::new(0x6461_7465);
        for _ in 0..2000 {
            let seconds = rng.below(usize::try_from(LAST_SECOND).unwrap()) as u64;
            let text = format_date(seconds);
            assert_eq!(parse_date(text.as_bytes()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "0",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Fri, 31 Feb 2003 00:00:00 GMT",
            "Fri, 29 Feb 2100 00:00:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT;",
            "Sun, 06 Nov -994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_date(b"Sun, 06 Nov 1994 08:49:37 \xff\xfe"), None);
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut rng = Rng::new(0x6461_7466);
        let alphabet = b"SunMoTedyNv0123456789 ,:-GMT\xff";
        for _ in 0..20_000 {
            let mut text = b"Sun, 06 Nov 1994 08:49:37 GMT".to_vec();
            for _ in 0..rng.below(4) + 1 {
                let at = rng.below(text.len());
                text[at] = alphabet[rng.below(alphabet.len())];
            }
            if let Some(seconds) = parse_date(&text) {
                assert!(seconds <= LAST_SECOND);
            }
        }
    }
}
