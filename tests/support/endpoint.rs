//! A handler that has a request's whole body before it answers.

use wsloop::{Http, HttpFailure, HttpHandler, HttpRequest, Response};

type Begun = Box<dyn FnMut(&HttpRequest<'_>) + Send>;
type Answer = Box<dyn FnMut(&mut Http<'_>, Vec<u8>) -> Result<(), HttpFailure> + Send>;

/// Looks at the request when it begins and answers when its body is whole, as the test says.
pub struct Endpoint {
    begun: Begun,
    answer: Answer,
}

impl Endpoint {
    pub fn new(
        answer: impl FnMut(&mut Http<'_>, Vec<u8>) -> Result<(), HttpFailure> + Send + 'static,
    ) -> Self {
        Self {
            begun: Box::new(|_| {}),
            answer: Box::new(answer),
        }
    }

    /// One that is asked by a webhook, in text; `None` hangs.
    pub fn asked(mut answer: impl FnMut(String) -> Option<Response> + Send + 'static) -> Self {
        Self::new(move |http, question| {
            if let Some(response) = answer(String::from_utf8(question).unwrap()) {
                http.respond(response)?;
            }
            Ok(())
        })
    }

    /// Looks at requests when they begin.
    pub fn begun(mut self, begun: impl FnMut(&HttpRequest<'_>) + Send + 'static) -> Self {
        self.begun = Box::new(begun);
        self
    }
}

impl HttpHandler for Endpoint {
    type Exchange = Vec<u8>;

    fn on_request(
        &mut self,
        _: &mut Http<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<Vec<u8>, HttpFailure> {
        (self.begun)(request);
        Ok(Vec::new())
    }

    fn on_body(
        &mut self,
        _: &mut Http<'_>,
        body: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<(), HttpFailure> {
        body.extend_from_slice(data);
        Ok(())
    }

    fn on_body_end(&mut self, http: &mut Http<'_>, body: &mut Vec<u8>) -> Result<(), HttpFailure> {
        (self.answer)(http, std::mem::take(body))
    }
}
