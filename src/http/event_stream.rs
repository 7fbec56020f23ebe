//! Server-sent events: the body format `text/event-stream` (HTML standard, section 9.2).

use std::time::Duration;

use thiserror::Error;

/// One event, to be written into a streamed response whose type is [`CONTENT_TYPE`].
///
/// ```
/// use wsloop::http::event_stream::Event;
///
/// let event = Event::data("21.5\n22.0").name("temperature")?;
/// assert_eq!(event.encode(), "event: temperature\ndata: 21.5\ndata: 22.0\n\n");
/// # Ok::<(), wsloop::http::event_stream::EventError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Event {
    data: String,
    name: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
}

impl Event {
    /// An event with this text; its lines arrive as lines.
    pub fn data(data: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// Its type, which chooses the listener in the browser. Default: `message`.
    ///
    /// # Errors
    /// [`EventError`] for a name with a line break.
    pub fn name(mut self, name: impl Into<String>) -> Result<Self, EventError> {
        self.name = Some(check(name.into(), "name")?);
        Ok(self)
    }

    /// Its id, which a reconnecting browser sends as `Last-Event-ID`.
    ///
    /// # Errors
    /// [`EventError`] for an id with a line break or NUL.
    pub fn id(mut self, id: impl Into<String>) -> Result<Self, EventError> {
        self.id = Some(check(id.into(), "id")?);
        Ok(self)
    }

    /// How long the browser waits before it reconnects, in whole milliseconds.
    pub const fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    /// The event as it is written into the body.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let mut field = |name: &str, value: &str| {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            text.push('\n');
        };
        if let Some(name) = &self.name {
            field("event", name);
        }
        if let Some(id) = &self.id {
            field("id", id);
        }
        if let Some(retry) = self.retry {
            field("retry", &retry.as_millis().to_string());
        }
        // CR, LF and CRLF each end a line for the reader.
        let data = self.data.replace("\r\n", "\n");
        for line in data.split(['\n', '\r']) {
            field("data", line);
        }
        text.push('\n');
        text
    }
}

/// A comment, which readers drop: sent now and then it keeps proxies from closing the stream.
pub const KEEP_ALIVE: &str = ":\n\n";

/// The media type of an event stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// A part of an event that would break the stream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the {field} of an event has a line break or NUL, which would end it; remove it")]
#[non_exhaustive]
pub struct EventError {
    /// Which part.
    pub field: &'static str,
}

fn check(value: String, field: &'static str) -> Result<String, EventError> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(EventError { field });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_break_of_the_data_ends_its_field() {
        let event = Event::data("a\r\nb\rc\nid: forged\n");
        let want = "data: a\ndata: b\ndata: c\ndata: id: forged\ndata: \n\n";
        assert_eq!(event.encode(), want);
    }

    #[test]
    fn names_and_ids_that_would_split_an_event_are_refused() {
        for bad in ["a\nb", "a\rb", "a\0"] {
            assert!(Event::data("").name(bad).is_err());
            assert!(Event::data("").id(bad).is_err());
        }
    }

    #[test]
    fn every_part_has_its_line() {
        let event = Event::data("x").name("n").unwrap().id("7").unwrap();
        let event = event.retry(Duration::from_millis(1500));
        assert_eq!(event.encode(), "event: n\nid: 7\nretry: 1500\ndata: x\n\n");
        assert_eq!(Event::data("").encode(), "data: \n\n");
    }
}
