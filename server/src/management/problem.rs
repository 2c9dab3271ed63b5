//! Why a request was not done: a status, and a body in RabbitMQ's form.

use std::fmt;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use millstream_engine::error::Refusal;
use serde_json::{Value, json};

use crate::amqp::error::{Failure, ReplyCode};

/// What went wrong.
#[derive(Clone, PartialEq, Debug)]
pub struct Problem {
    /// The answer's status.
    pub status: StatusCode,
    /// What sort of thing.
    pub error: &'static str,
    /// The rest: a text, or whatever RabbitMQ has in its place.
    pub reason: Value,
    /// Whether the client is to ask for a name and a password.
    challenges: bool,
}

impl Problem {
    fn new(status: StatusCode, error: &'static str, reason: impl Into<Value>) -> Problem {
        Problem { status, error, reason: reason.into(), challenges: false }
    }

    /// 400
    pub fn bad(reason: impl Into<Value>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// 400, of another sort.
    pub fn bad_as(error: &'static str, reason: impl Into<Value>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, error, reason)
    }

    /// 400: something has to be said that was not.
    pub fn missing(key: &str) -> Problem {
        Problem::bad(format!("[{{key_missing,{key}}}]"))
    }

    /// 401: who is there is not known.
    pub fn unknown_user() -> Problem {
        let reason = "Login failed";
        Problem { challenges: true, ..Problem::new(StatusCode::UNAUTHORIZED, "not_authorized", reason) }
    }

    /// 401: the user may not do this.
    pub fn refused_user(reason: impl Into<Value>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// 404: what the path names is not there.
    pub fn no_object() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// 404: something that the path's object needs is not there.
    pub fn not_found(reason: impl Into<Value>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// The same, and what it is about.
    #[must_use]
    pub fn about(self, what: &str) -> Problem {
        let reason = match &self.reason {
            Value::String(reason) => format!("{what}: {reason}"),
            other => format!("{what}: {other}"),
        };
        Problem { reason: Value::String(reason), ..self }
    }

    /// 413
    pub fn too_large(limit: usize) -> Problem {
        let reason = format!("a request's body has {limit} bytes at most");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", reason)
    }

    /// 408
    pub fn too_slow() -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come in time")
    }

    /// 503
    pub fn unavailable(reason: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason)
    }

    /// What AMQP would answer, as HTTP does.
    pub fn failed(failure: &Failure) -> Problem {
        let text = failure.text.clone();
        match failure.code {
            ReplyCode::AccessRefused => Problem::refused_user(text),
            ReplyCode::NotFound => Problem::not_found(text),
            ReplyCode::ResourceError => Problem::unavailable(&text),
            ReplyCode::InternalError => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", text)
            }
            _ => Problem::bad(text),
        }
    }

    /// What the engine refuses.
    pub fn refused(refusal: &Refusal) -> Problem {
        Problem::failed(&Failure::of(refusal, b"", b""))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Value::String(reason) => f.write_str(reason),
            other => write!(f, "{other}"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "reason": self.reason}).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.challenges {
            let challenge = header::HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
