//! What goes wrong in the protocol's own terms: a code, how much it ends, and the text that RabbitMQ's clients look for.

use std::fmt;

use millstream_engine::error::Refusal;

/// A reply code. Its number is the wire's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyCode {
    /// 200
    Success = 200,
    /// 311
    ContentTooLarge = 311,
    /// 312
    NoRoute = 312,
    /// 320
    ConnectionForced = 320,
    /// 403
    AccessRefused = 403,
    /// 404
    NotFound = 404,
    /// 405
    ResourceLocked = 405,
    /// 406
    PreconditionFailed = 406,
    /// 501
    FrameError = 501,
    /// 502
    SyntaxError = 502,
    /// 503
    CommandInvalid = 503,
    /// 504
    ChannelError = 504,
    /// 505
    UnexpectedFrame = 505,
    /// 506
    ResourceError = 506,
    /// 530
    NotAllowed = 530,
    /// 540
    NotImplemented = 540,
    /// 541
    InternalError = 541,
}

impl ReplyCode {
    /// Its name, which every text begins with.
    fn name(self) -> &'static str {
        match self {
            ReplyCode::Success => "OK",
            ReplyCode::ContentTooLarge => "CONTENT_TOO_LARGE",
            ReplyCode::NoRoute => "NO_ROUTE",
            ReplyCode::ConnectionForced => "CONNECTION_FORCED",
            ReplyCode::AccessRefused => "ACCESS_REFUSED",
            ReplyCode::NotFound => "NOT_FOUND",
            ReplyCode::ResourceLocked => "RESOURCE_LOCKED",
            ReplyCode::PreconditionFailed => "PRECONDITION_FAILED",
            ReplyCode::FrameError => "FRAME_ERROR",
            ReplyCode::SyntaxError => "SYNTAX_ERROR",
            ReplyCode::CommandInvalid => "COMMAND_INVALID",
            ReplyCode::ChannelError => "CHANNEL_ERROR",
            ReplyCode::UnexpectedFrame => "UNEXPECTED_FRAME",
            ReplyCode::ResourceError => "RESOURCE_ERROR",
            ReplyCode::NotAllowed => "NOT_ALLOWED",
            ReplyCode::NotImplemented => "NOT_IMPLEMENTED",
            ReplyCode::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether it ends the channel only.
    fn is_channels(self) -> bool {
        match self {
            ReplyCode::ContentTooLarge
            | ReplyCode::NoRoute
            | ReplyCode::AccessRefused
            | ReplyCode::NotFound
            | ReplyCode::ResourceLocked
            | ReplyCode::PreconditionFailed => true,
            ReplyCode::Success
            | ReplyCode::ConnectionForced
            | ReplyCode::FrameError
            | ReplyCode::SyntaxError
            | ReplyCode::CommandInvalid
            | ReplyCode::ChannelError
            | ReplyCode::UnexpectedFrame
            | ReplyCode::ResourceError
            | ReplyCode::NotAllowed
            | ReplyCode::NotImplemented
            | ReplyCode::InternalError => false,
        }
    }
}

/// Why something was not done: what the client is told. The method that it was about is added by whoever tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The code.
    pub code: ReplyCode,
    /// The text behind the code's name.
    pub text: String,
}

/// The most that a reply text can have.
const TEXT_BYTES_MAX: usize = 255;
/// What a text ends with that was cut.
const CUT: &str = "...";

impl Failure {
    /// A failure with this text.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }

    /// Whether it ends the channel only.
    pub fn is_channels(&self) -> bool {
        self.code.is_channels()
    }

    /// What is sent: the code's name, a dash, the text, as far as it fits.
    pub fn reply_text(&self) -> Vec<u8> {
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - CUT.len()));
            text.push_str(CUT);
        }
        text.into_bytes()
    }

    /// 502
    pub fn syntax(text: &str) -> Failure {
        Failure::new(ReplyCode::SyntaxError, text)
    }

    /// 406
    pub fn precondition(text: impl Into<String>) -> Failure {
        Failure::new(ReplyCode::PreconditionFailed, text)
    }

    /// 403
    pub fn refused(text: impl Into<String>) -> Failure {
        Failure::new(ReplyCode::AccessRefused, text)
    }

    /// 404
    pub fn not_found(text: impl Into<String>) -> Failure {
        Failure::new(ReplyCode::NotFound, text)
    }

    /// 530
    pub fn not_allowed(text: impl Into<String>) -> Failure {
        Failure::new(ReplyCode::NotAllowed, text)
    }

    /// 540
    pub fn not_implemented(text: impl Into<String>) -> Failure {
        Failure::new(ReplyCode::NotImplemented, text)
    }

    /// 404: there is no such queue.
    pub fn no_queue(queue: &[u8], vhost: &[u8]) -> Failure {
        Failure::not_found(format!("no {}", queue_in(queue, vhost)))
    }

    /// 404: there is no such exchange.
    pub fn no_exchange(exchange: &[u8], vhost: &[u8]) -> Failure {
        Failure::not_found(format!("no {}", exchange_in(exchange, vhost)))
    }

    /// 405: the queue is another connection's.
    pub fn locked(queue: &[u8], vhost: &[u8]) -> Failure {
        let text = format!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the exclusive \
             property value does not match that of the original declaration.",
            queue_in(queue, vhost)
        );
        Failure::new(ReplyCode::ResourceLocked, text)
    }

    /// What the engine refuses, told of a queue.
    pub fn of(refusal: &Refusal, queue: &[u8], vhost: &[u8]) -> Failure {
        match refusal {
            Refusal::UnknownQueue | Refusal::UnknownConsumer => Failure::no_queue(queue, vhost),
            Refusal::QueueInUse => Failure::precondition(format!("{} in use", queue_in(queue, vhost))),
            Refusal::QueueNotEmpty => Failure::precondition(format!("{} not empty", queue_in(queue, vhost))),
            Refusal::InvalidQueue(what) => {
                Failure::precondition(format!("invalid arg for {}: {what}", queue_in(queue, vhost)))
            }
            Refusal::MessageTooLarge { limit } => {
                Failure::precondition(format!("message is larger than configured max size {limit}"))
            }
            Refusal::TooManyQueues => {
                Failure::precondition(format!("cannot declare {}: {refusal}", queue_in(queue, vhost)))
            }
            Refusal::Busy | Refusal::DiskFull | Refusal::Poisoned | Refusal::ReadFailed => {
                Failure::new(ReplyCode::ResourceError, refusal.to_string())
            }
            other => Failure::new(ReplyCode::InternalError, other.to_string()),
        }
    }
}

/// Names a queue in an error's text.
pub fn queue_in(queue: &[u8], vhost: &[u8]) -> String {
    format!("queue '{}' in vhost '{}'", Text(queue), Text(vhost))
}

/// Names an exchange in an error's text.
pub fn exchange_in(exchange: &[u8], vhost: &[u8]) -> String {
    format!("exchange '{}' in vhost '{}'", Text(exchange), Text(vhost))
}

/// Bytes from the wire, to be read by people.
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_its_code_and_is_cut_to_what_fits() {
        assert_eq!(Failure::no_queue(b"q", b"/").reply_text(), b"NOT_FOUND - no queue 'q' in vhost '/'");
        let long = Failure::no_queue(&[b'x'; 255], b"/").reply_text();
        assert_eq!(long.len(), 255);
        assert!(Failure::no_queue(b"q", b"/").is_channels());
        assert!(!Failure::not_allowed("").is_channels());
    }
}
