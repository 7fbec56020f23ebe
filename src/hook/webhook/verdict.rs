//! What an endpoint answers.

use std::collections::BTreeMap;

use thiserror::Error;

use super::json::{self, JsonError, Value};
use crate::hook::{AttributeError, Attributes, Grant, HookAnswer};
use crate::http::response::is_framing_field;
use crate::http::{HeaderError, HeaderList};
use crate::protocol::Refuse;

/// Reads the body of a response.
pub(super) fn read(body: &[u8]) -> Result<HookAnswer, VerdictError> {
    let Value::Object(mut answer) = json::read(body).map_err(VerdictError::Json)? else {
        return Err(VerdictError::Kind("answer", "an object"));
    };
    let Some(Value::String(result)) = answer.remove("result") else {
        return Err(VerdictError::Kind("result", RESULTS));
    };
    match result.as_str() {
        "allow" => Ok(HookAnswer::Allow(grant(answer)?)),
        "deny" => Ok(HookAnswer::Deny(refuse(answer)?)),
        "next" => Ok(HookAnswer::Next),
        _ => Err(VerdictError::Kind("result", RESULTS)),
    }
}

fn grant(mut answer: BTreeMap<String, Value>) -> Result<Grant, VerdictError> {
    let mut grant = Grant::new().headers(headers(answer.remove("headers"))?);
    grant = grant.attributes(attributes(answer.remove("attributes"))?);
    match answer.remove("subprotocol") {
        None | Some(Value::Null) => Ok(grant),
        Some(Value::String(name)) => Ok(grant.subprotocol(name)),
        Some(_) => Err(VerdictError::Kind("subprotocol", "a string")),
    }
}

fn refuse(mut answer: BTreeMap<String, Value>) -> Result<Refuse, VerdictError> {
    let status = match answer.remove("status") {
        None | Some(Value::Null) => 403,
        Some(Value::Number(Some(status @ 300..=599))) => u16::try_from(status).unwrap_or(403),
        Some(_) => return Err(VerdictError::Kind("status", "a number from 300 to 599")),
    };
    let refuse = Refuse::new(status).headers(headers(answer.remove("headers"))?);
    match answer.remove("body") {
        None | Some(Value::Null) => Ok(refuse),
        Some(Value::String(body)) => Ok(refuse.body(body)),
        Some(_) => Err(VerdictError::Kind("body", "a string")),
    }
}

fn headers(value: Option<Value>) -> Result<HeaderList, VerdictError> {
    let mut headers = HeaderList::new();
    for (name, value) in pairs("headers", value)? {
        if is_framing_field(&name) {
            return Err(VerdictError::FramingField(name));
        }
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let Value::String(value) = value else {
                return Err(VerdictError::Kind(
                    "headers",
                    "strings, or lists of them, by name",
                ));
            };
            headers.push(name.as_str(), value)?;
        }
    }
    Ok(headers)
}

fn attributes(value: Option<Value>) -> Result<Attributes, VerdictError> {
    let mut attributes = Attributes::new();
    for (name, value) in pairs("attributes", value)? {
        let Value::String(value) = value else {
            return Err(VerdictError::Kind("attributes", "strings by name"));
        };
        attributes.set(&name, &value)?;
    }
    Ok(attributes)
}

fn pairs(
    field: &'static str,
    value: Option<Value>,
) -> Result<BTreeMap<String, Value>, VerdictError> {
    match value {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(pairs)) => Ok(pairs),
        Some(_) => Err(VerdictError::Kind(field, "an object")),
    }
}

const RESULTS: &str = "\"allow\", \"deny\" or \"next\"";

/// Why an answer is none.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum VerdictError {
    #[error("the endpoint's answer has {0}")]
    Attribute(#[from] AttributeError),
    #[error("the endpoint's answer sets the header {0:?}, which only the library writes")]
    FramingField(String),
    #[error("the endpoint's answer: {0}")]
    Header(#[from] HeaderError),
    #[error("the endpoint's answer: {0}")]
    Json(JsonError),
    #[error("the endpoint's answer: {0:?} must be {1}")]
    Kind(&'static str, &'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_results_and_what_comes_with_them() {
        let allow = br#"{"result":"allow","subprotocol":"mqtt","more":[1],
            "headers":{"X-A":"1","Set-Cookie":["a=b","c=d"]},"attributes":{"user":"ada"}}"#;
        let Ok(HookAnswer::Allow(grant)) = read(allow) else {
            panic!("it allows");
        };
        assert_eq!(grant.subprotocol.as_deref(), Some("mqtt"));
        assert_eq!(grant.attributes.get("user"), Some("ada"));
        let fields: Vec<_> = grant.headers.iter().collect();
        assert_eq!(fields.len(), 3);
        assert!(fields.contains(&("Set-Cookie", b"c=d".as_slice())));

        let deny = br#"{"result":"deny","status":401,"headers":{"WWW-Authenticate":"Basic"},
            "body":"who?"}"#;
        let Ok(HookAnswer::Deny(refuse)) = read(deny) else {
            panic!("it denies");
        };
        assert_eq!(
            (refuse.status, refuse.body.as_slice()),
            (401, b"who?".as_slice())
        );
        assert!(matches!(
            read(br#"{"result":"next"}"#),
            Ok(HookAnswer::Next)
        ));
        let bare = read(br#"{"result":"deny","status":null,"headers":null}"#);
        assert!(matches!(bare, Ok(HookAnswer::Deny(refuse)) if refuse.status == 403));
    }

    #[test]
    fn an_answer_with_something_wrong_is_no_answer() {
        for (body, problem) in [
            ("", "ends early"),
            ("<html>", "not JSON"),
            ("[]", "must be an object"),
            ("{}", "\"result\""),
            (r#"{"result":"Allow"}"#, "\"result\""),
            (r#"{"result":true}"#, "\"result\""),
            (r#"{"result":["allow"]}"#, "\"result\""),
            (r#"{"result":"deny","result":"allow"}"#, "twice"),
            (r#"{"result":"deny","status":200}"#, "300 to 599"),
            (r#"{"result":"deny","status":600}"#, "300 to 599"),
            (r#"{"result":"deny","status":"403"}"#, "300 to 599"),
            (r#"{"result":"deny","status":403.0}"#, "300 to 599"),
            (r#"{"result":"deny","body":{}}"#, "\"body\""),
            (r#"{"result":"allow","headers":[]}"#, "an object"),
            (r#"{"result":"allow","headers":{"X":1}}"#, "strings"),
            (
                r#"{"result":"allow","headers":{"X":"a\r\nb: c"}}"#,
                "line break",
            ),
            (r#"{"result":"deny","headers":{"X Y":"a"}}"#, "header"),
            (
                r#"{"result":"deny","headers":{"content-length":"1"}}"#,
                "only the library",
            ),
            (
                r#"{"result":"deny","headers":{"Transfer-Encoding":"chunked"}}"#,
                "only the library",
            ),
            (r#"{"result":"allow","attributes":{"a":1}}"#, "strings"),
            (r#"{"result":"allow","attributes":{"":"x"}}"#, "attribute"),
            (r#"{"result":"allow","subprotocol":7}"#, "\"subprotocol\""),
        ] {
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{body}: {error}");
        }
    }
}
