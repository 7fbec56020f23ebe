//! The few fields of a certificate that no library here gives: validity, serial number, names of
//! subject and issuer, public key.
//!
//! A bounded walk over DER (RFC 5280 section 4.1): every length is checked against what is there,
//! nothing is allocated from it, and nothing recurses.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time as certificates give it: UTC, in whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(i64);

impl UtcTime {
    /// From seconds since 1970-01-01 00:00:00 UTC; earlier times are negative.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01 00:00:00 UTC; earlier times are negative.
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// The same time as the standard library has it.
    pub fn system_time(self) -> SystemTime {
        let distance = Duration::from_secs(self.0.unsigned_abs());
        let time = if self.0 < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        time.unwrap_or(UNIX_EPOCH)
    }

    /// Whole seconds from `earlier` to this time, 0 if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        let seconds = self.0.saturating_sub(earlier.0);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// The time of that civil date in the proleptic Gregorian calendar, if there is one.
    fn civil(year: i64, month: i64, day: i64, second_of_day: i64) -> Option<Self> {
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // Years are counted from March, so that the leap day is a year's last.
        let (year, month) = if month <= 2 {
            (year - 1, month + 9)
        } else {
            (year, month - 3)
        };
        let day_of_year = (153 * month + 2) / 5 + day - 1;
        let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        Some(Self(
            (days + day_of_year - DAYS_TO_1970) * DAY + second_of_day,
        ))
    }
}

impl From<SystemTime> for UtcTime {
    fn from(time: SystemTime) -> Self {
        let seconds = |distance: Duration| i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(seconds(after)),
            Err(before) => Self(-seconds(before.duration())),
        }
    }
}

/// As people read it: [`Display`](fmt::Display).
impl fmt::Debug for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `2026-11-20 03:04:05 UTC`.
impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let days = days + DAYS_TO_1970;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 {
            (era * 400 + year_of_era, month + 3)
        } else {
            (era * 400 + year_of_era + 1, month - 9)
        };
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// What is read of a certificate. Slices are of the certificate's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    /// The serial number's bytes, big-endian.
    pub(crate) serial: &'a [u8],
    /// The issuer's name, DER.
    pub(crate) issuer: &'a [u8],
    pub(crate) not_before: UtcTime,
    pub(crate) not_after: UtcTime,
    /// The subject's name, DER.
    pub(crate) subject: &'a [u8],
    /// SubjectPublicKeyInfo with its tag and length.
    pub(crate) public_key: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads a certificate. `None` when it is none.
    pub(crate) fn read(certificate: &'a [u8]) -> Option<Self> {
        let mut rest = certificate;
        let mut certificate = expect(&mut rest, SEQUENCE)?;
        if !rest.is_empty() {
            return None;
        }
        let mut tbs = expect(&mut certificate, SEQUENCE)?;
        if tbs.first() == Some(&VERSION) {
            element(&mut tbs)?;
        }
        let serial = expect(&mut tbs, INTEGER)?;
        expect(&mut tbs, SEQUENCE)?; // the algorithm of the signature
        let issuer = expect(&mut tbs, SEQUENCE)?;
        let mut validity = expect(&mut tbs, SEQUENCE)?;
        let not_before = time(element(&mut validity)?)?;
        let not_after = time(element(&mut validity)?)?;
        let subject = expect(&mut tbs, SEQUENCE)?;
        let before = tbs;
        expect(&mut tbs, SEQUENCE)?;
        let public_key = before.get(..before.len() - tbs.len())?;
        Some(Self {
            serial,
            issuer,
            not_before,
            not_after,
            subject,
            public_key,
        })
    }

    /// Whether subject and issuer are the same: a root's certificate, or a self-signed one.
    #[cfg(test)]
    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// The last common name (CN) of the subject that is text.
    pub(crate) fn common_name(&self) -> Option<&'a str> {
        let mut names = self.subject;
        let mut found = None;
        while let Some((SET, mut set)) = element(&mut names) {
            while let Some((SEQUENCE, mut attribute)) = element(&mut set) {
                if expect(&mut attribute, OBJECT_IDENTIFIER) == Some(COMMON_NAME) {
                    found = element(&mut attribute).and_then(text).or(found);
                }
            }
        }
        found
    }
}

/// Takes the next element, tag and contents.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    if tag & HIGH_TAG == HIGH_TAG {
        return None;
    }
    let (len, rest) = length(rest)?;
    let (contents, rest) = rest.split_at_checked(len)?;
    *input = rest;
    Some((tag, contents))
}

/// Takes the next element, which must have that tag.
fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let mut rest = *input;
    let (found, contents) = element(&mut rest)?;
    if found != tag {
        return None;
    }
    *input = rest;
    Some(contents)
}

fn length(input: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let bytes = usize::from(first & 0x7f);
    if bytes == 0 || bytes > LENGTH_BYTES_MAX {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(bytes)?;
    let len = bytes
        .iter()
        .fold(0, |len, &byte| len << 8 | usize::from(byte));
    Some((len, rest))
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` (years 1950 to 2049) or `YYYYMMDDHHMMSSZ`.
fn time((tag, contents): (u8, &[u8])) -> Option<UtcTime> {
    let mut digits = contents.strip_suffix(b"Z")?;
    let year = match tag {
        UTC_TIME => match two_digits(&mut digits)? {
            year @ 0..50 => 2000 + year,
            year => 1900 + year,
        },
        GENERALIZED_TIME => two_digits(&mut digits)? * 100 + two_digits(&mut digits)?,
        _ => return None,
    };
    let (month, day) = (two_digits(&mut digits)?, two_digits(&mut digits)?);
    let (hour, minute) = (two_digits(&mut digits)?, two_digits(&mut digits)?);
    let second = two_digits(&mut digits)?;
    let in_range = hour < 24 && minute < 60 && second <= 60 && digits.is_empty();
    if !in_range {
        return None;
    }
    UtcTime::civil(year, month, day, hour * 3600 + minute * 60 + second)
}

fn two_digits(digits: &mut &[u8]) -> Option<i64> {
    let (&[tens, ones], rest) = digits.split_first_chunk()?;
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    *digits = rest;
    Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

fn text((tag, contents): (u8, &[u8])) -> Option<&str> {
    match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => std::str::from_utf8(contents).ok(),
        _ => None,
    }
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed.
const VERSION: u8 = 0xa0;
/// Tags of more than one byte, which certificates do not have.
const HIGH_TAG: u8 = 0x1f;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Lengths up to 16 MiB, which fit any `usize`.
const LENGTH_BYTES_MAX: usize = 3;

const DAY: i64 = 24 * 60 * 60;
/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::super::testpki::{Pki, date};
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(UtcTime(unix).to_string(), text);
        }
    }

    #[test]
    fn both_forms_of_time_are_read_back_as_they_are_written() {
        for (tag, written, text) in [
            (UTC_TIME, "500101000000Z", "1950-01-01 00:00:00 UTC"),
            (UTC_TIME, "491231235959Z", "2049-12-31 23:59:59 UTC"),
            (UTC_TIME, "000229120000Z", "2000-02-29 12:00:00 UTC"),
            (
                GENERALIZED_TIME,
                "20500101000000Z",
                "2050-01-01 00:00:00 UTC",
            ),
            (
                GENERALIZED_TIME,
                "99991231235959Z",
                "9999-12-31 23:59:59 UTC",
            ),
        ] {
            let read = time((tag, written.as_bytes())).unwrap();
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_one_after_the_last() {
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut expected = UtcTime::civil(1600, 1, 1, 0).unwrap();
        for year in 1600..2400 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, length) in (1..).zip(lengths) {
                let length = if month == 2 && leap { 29 } else { length };
                for day in 1..=length {
                    let time = UtcTime::civil(year, month, day, 0).unwrap();
                    assert_eq!(time, expected);
                    let text = format!("{year:04}-{month:02}-{day:02} 00:00:00 UTC");
                    assert_eq!(time.to_string(), text);
                    expected = UtcTime(expected.0 + DAY);
                }
            }
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for written in [
            "",
            "Z",
            "20260101Z",
            "260101000000",
            "2601010000Z",
            "261301000000Z",
            "260100000000Z",
            "260132000000Z",
            "260101240000Z",
            "260101006000Z",
            "260101000061Z",
            "26010100000aZ",
            "2601010000000Z",
            "260101000000+0100",
            "+60101000000Z",
        ] {
            assert_eq!(time((UTC_TIME, written.as_bytes())), None, "{written}");
        }
        assert_eq!(time((INTEGER, b"260101000000Z")), None);
    }

    #[test]
    fn the_fields_of_a_certificate_are_read() {
        let pki = Pki::new("the ca");
        let leaf = pki
            .leaf(&["a.test"])
            .valid(date(2024, 2, 29), date(2051, 7, 1))
            .issue();
        let fields = Fields::read(leaf.leaf_der()).unwrap();
        assert_eq!(fields.not_before.to_string(), "2024-02-29 00:00:00 UTC");
        assert_eq!(fields.not_after.to_string(), "2051-07-01 00:00:00 UTC");
        assert_eq!(fields.common_name(), Some("a.test"));
        assert_eq!(fields.serial, leaf.serial());
        assert!(!fields.is_self_issued());
        let issuer = Fields::read(pki.ca_der()).unwrap();
        assert_eq!(fields.issuer, issuer.subject);
        assert_eq!(issuer.common_name(), Some("the ca"));
        assert!(issuer.is_self_issued());
        let key = rustls::pki_types::CertificateDer::from(leaf.leaf_der());
        let parsed = webpki::EndEntityCert::try_from(&key).unwrap();
        assert_eq!(fields.public_key, &parsed.subject_public_key_info()[..]);
    }

    #[test]
    fn every_truncation_is_refused() {
        let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
        let der = leaf.leaf_der();
        for len in 0..der.len() {
            assert!(Fields::read(&der[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn every_byte_changed_in_every_bit_is_survived() {
        let leaf = Pki::new("ca").leaf(&["a.test"]).issue();
        let mut der = leaf.leaf_der().to_vec();
        for at in 0..der.len() {
            for bit in 0..8 {
                der[at] ^= 1 << bit;
                if let Some(fields) = Fields::read(&der) {
                    let _ = fields.common_name();
                    let _ = (
                        fields.not_before.to_string(),
                        fields.not_after.system_time(),
                    );
                }
                der[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn lengths_beyond_what_is_there_are_refused() {
        for der in [
            &[0x30, 0x80][..],
            &[0x30, 0x84, 0, 0, 0, 0],
            &[0x30, 0x83, 0xff, 0xff, 0xff],
            &[0x30, 0x82, 0x01],
            &[0x3f, 0x01, 0x00],
        ] {
            assert_eq!(element(&mut { der }), None, "{der:02x?}");
        }
    }
}
