//! JSON (RFC 8259), as much as a webhook needs: a writer of text and a strict reader.

use std::collections::BTreeMap;

use thiserror::Error;

/// Appends a string with its quotes.
pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // U+2028 and U+2029 end lines in what once was JavaScript.
            '\u{2028}' | '\u{2029}' => escape(out, char),
            _ if char.is_control() => escape(out, char),
            _ => out.push(char),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, char: char) {
    out.push_str(&format!("\\u{:04x}", u32::from(char)));
}

/// Appends a list of strings.
pub(super) fn write_strings<'a>(out: &mut String, texts: impl IntoIterator<Item = &'a str>) {
    out.push('[');
    for (number, text) in texts.into_iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        write_string(out, text);
    }
    out.push(']');
}

/// What a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Array(Vec<Self>),
    Bool(bool),
    Null,
    /// Without a fraction, exponent or sign, and below 2^64; else `None`.
    Number(Option<u64>),
    Object(BTreeMap<String, Self>),
    String(String),
}

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum JsonError {
    #[error("a name comes twice in an object")]
    DuplicateName,
    #[error("it ends early")]
    EndsEarly,
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("not UTF-8")]
    Utf8,
}

/// Reads one value, around which only white space may stand.
pub(super) fn read(bytes: &[u8]) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Utf8)?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.syntax()),
    }
}

struct Reader<'t> {
    text: &'t str,
    /// On a boundary of characters.
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.skip_space();
        match self.peek().ok_or(JsonError::EndsEarly)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => Ok(Value::String(self.string()?)),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => Err(self.syntax()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut object = BTreeMap::new();
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(object));
        }
        loop {
            self.skip_space();
            self.expect_next(b'"')?;
            let name = self.string()?;
            self.skip_space();
            self.expect_next(b':')?;
            self.at += 1;
            let value = self.value(depth + 1)?;
            if object.insert(name, value).is_some() {
                return Err(JsonError::DuplicateName);
            }
            self.skip_space();
            if self.take(b'}') {
                return Ok(Value::Object(object));
            }
            self.expect_next(b',')?;
            self.at += 1;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        let mut array = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(array));
        }
        loop {
            array.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(array));
            }
            self.expect_next(b',')?;
            self.at += 1;
        }
    }

    /// A string; the reader stands on its first quote.
    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let char = self.next_char()?;
            match char {
                '"' => return Ok(string),
                '\\' => string.push(self.escape()?),
                // RFC 8259 section 7: control characters must be escaped.
                '\0'..='\u{1f}' => {
                    self.at -= 1;
                    return Err(self.syntax());
                }
                _ => string.push(char),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let at = self.at;
        Ok(match self.next_char()? {
            '"' => '"',
            '\\' => '\\',
            '/' => '/',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode_escape(at),
            _ => return Err(JsonError::Syntax(at)),
        })
    }

    /// What follows `\u`. A surrogate without its other half is no character.
    fn unicode_escape(&mut self, at: usize) -> Result<char, JsonError> {
        let wrong = JsonError::Syntax(at);
        let first = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(wrong);
        }
        if self.next_char()? != '\\' || self.next_char()? != 'u' {
            return Err(wrong);
        }
        let second = self.four_digits()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(wrong);
        }
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        char::from_u32(code).ok_or(wrong)
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let at = self.at;
            let digit = self.next_char()?.to_digit(16);
            code = code * 16 + digit.ok_or(JsonError::Syntax(at))?;
        }
        Ok(code)
    }

    /// RFC 8259 section 6: no leading zeros, no bare point, no plus.
    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Ok(Value::Number(text.parse().ok()))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'0'..=b'9') => {}
            Some(_) => return Err(self.syntax()),
            None => return Err(JsonError::EndsEarly),
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(value);
        }
        match word.starts_with(rest) {
            true => Err(JsonError::EndsEarly),
            false => Err(self.syntax()),
        }
    }

    fn next_char(&mut self) -> Result<char, JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let char = rest.chars().next().ok_or(JsonError::EndsEarly)?;
        self.at += char.len_utf8();
        Ok(char)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        if is_there {
            self.at += 1;
        }
        is_there
    }

    fn expect_next(&self, byte: u8) -> Result<(), JsonError> {
        match self.peek() {
            Some(found) if found == byte => Ok(()),
            Some(_) => Err(self.syntax()),
            None => Err(JsonError::EndsEarly),
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    const fn syntax(&self) -> JsonError {
        JsonError::Syntax(self.at)
    }
}

/// Far more than an answer has, far less than the stack.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::test_support::Rng;

    fn string(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn read_text(text: &str) -> Result<Value, JsonError> {
        read(text.as_bytes())
    }

    #[test]
    fn what_json_is_gives_its_value() {
        let object = |pairs: &[(&str, Value)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()));
            Value::Object(pairs.collect())
        };
        let cases = [
            ("null", Value::Null),
            (" \t\r\n true ", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("0", Value::Number(Some(0))),
            ("403", Value::Number(Some(403))),
            ("-0", Value::Number(None)),
            ("-1", Value::Number(None)),
            ("1.5e+3", Value::Number(None)),
            ("1E400", Value::Number(None)),
            ("18446744073709551615", Value::Number(Some(u64::MAX))),
            ("18446744073709551616", Value::Number(None)),
            (r#""""#, string("")),
            (r#""a\"\\\/\b\f\n\r\tb""#, string("a\"\\/\u{8}\u{c}\n\r\tb")),
            (r#""\u0041\u00e9\u20AC""#, string("A\u{e9}\u{20ac}")),
            (r#""\ud83d\ude00""#, string("\u{1f600}")),
            ("\"\u{1f600}\u{7f}\"", string("\u{1f600}\u{7f}")),
            ("[]", Value::Array(vec![])),
            (
                "[ 1 , [ ] ]",
                Value::Array(vec![Value::Number(Some(1)), Value::Array(vec![])]),
            ),
            ("{}", object(&[])),
            (
                r#" { "a" : 1 , "b" : { "a" : null } } "#,
                object(&[
                    ("a", Value::Number(Some(1))),
                    ("b", object(&[("a", Value::Null)])),
                ]),
            ),
        ];
        for (text, value) in cases {
            assert_eq!(read_text(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let cases = [
            "",
            " ",
            "nul",
            "nulll",
            "True",
            "'a'",
            "a",
            "{",
            "[",
            "[1,",
            "[1,]",
            "[,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1 \"b\":2}",
            "{,}",
            "01",
            "+1",
            ".5",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "-",
            "--1",
            "0x1",
            "1a",
            "NaN",
            "Infinity",
            "\"",
            "\"a",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\ud83d\"",
            "\"\\ud83d\\n\"",
            "\"\\ud83d\\u0041\"",
            "\"\\ude00\"",
            "\"a\nb\"",
            "\"\t\"",
            "\"\0\"",
            "1 1",
            "{} {}",
            "\u{feff}1",
            "\u{a0}1",
            "// c\n1",
            "[1]]",
            "\u{0}",
        ];
        for text in cases {
            assert!(read_text(text).is_err(), "{text:?}");
        }
        assert_eq!(read(b"\"\xff\""), Err(JsonError::Utf8));
        let twice = read_text(r#"{"result":"deny","result":"allow"}"#);
        assert_eq!(twice, Err(JsonError::DuplicateName));
        let same = read_text(r#"{"a":1,"\u0061":2}"#);
        assert_eq!(same, Err(JsonError::DuplicateName));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_ends() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
            assert!(read_text(&nested(MAX_DEPTH)).is_ok());
            assert_eq!(read_text(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
            assert_eq!(read_text(&open.repeat(100_000)), Err(JsonError::TooDeep));
        }
    }

    #[test]
    fn every_string_that_is_written_is_read_back() {
        let mut rng = Rng::new(0x5eed_0001);
        for _ in 0..2000 {
            let text: String = (0..rng.below(20))
                .filter_map(|_| {
                    let top = [0x30, 0x80, 0x3000, 0x11_0000][rng.below(4)];
                    char::from_u32(u32::try_from(rng.below(top)).unwrap())
                })
                .collect();
            let mut written = String::new();
            write_string(&mut written, &text);
            assert_eq!(read_text(&written), Ok(string(&text)), "{rng:?}");
            assert!(!written.chars().any(char::is_control), "{written:?}");
        }
    }

    #[test]
    fn broken_json_never_panics() {
        let whole =
            r#"{"result":"deny","status":403,"headers":{"X":["\u00e9\ud83d\ude00",1.5e-3]}}"#;
        let mut rng = Rng::new(0x5eed_0002);
        for _ in 0..5000 {
            let mut bytes = whole.as_bytes().to_vec();
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len());
                bytes[at] = u8::try_from(rng.below(256)).unwrap();
            }
            bytes.truncate(rng.below(bytes.len() + 1));
            let _ = read(&bytes);
        }
    }
}
