//! What comes in: frames, to the channels that they are for.

use super::{Connection, Stage};
use crate::amqp::census::Holder;
use crate::amqp::channel::Channel;
use crate::amqp::codec::{
    BASIC_CLASS, ChannelCloseOk, ChannelOpenOk, ConnectionCloseOk, ConnectionUpdateSecretOk, FRAME_BODY,
    FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Header, Long, Malformed, Method, Reader,
};
use crate::amqp::error::{Failure, ReplyCode, Text};
use crate::amqp::frames::{Frame, FrameError};
use crate::amqp::state::Desk;
use crate::amqp::topology::limits::Limits;
use crate::limits::{AMQP_BODY_COPIED_BYTES_MAX, AMQP_CHANNELS_PER_SHARD_MAX, AMQP_WORK_PER_STEP};

/// The class of methods about a connection as a whole.
const CONNECTION_CLASS: u16 = 10;

/// `basic.publish`.
const PUBLISH: u16 = 40;

/// How long the body of a message is, if that is what a method and a header begin.
fn small_body(method: &[u8], header: &[u8]) -> Option<u64> {
    let (class, id) = (BASIC_CLASS.to_be_bytes(), PUBLISH.to_be_bytes());
    let is_publish = method.starts_with(&[class[0], class[1], id[0], id[1]]);
    Some(Header::read(header).ok().filter(|_| is_publish)?.body_bytes)
}

/// What is wrong, and with which method.
type Wrong = (Failure, (u16, u16));

fn wrong(code: ReplyCode, text: impl Into<String>, method: (u16, u16)) -> Wrong {
    (Failure::new(code, text), method)
}

/// Reads a method's frame.
fn read_method(payload: &[u8]) -> Result<Method<'_>, Wrong> {
    let mut reader = Reader::new(payload);
    let malformed = |method| move |_| wrong(ReplyCode::FrameError, "a method is malformed", method);
    let class = reader.u16().map_err(malformed((0, 0)))?;
    let id = reader.u16().map_err(malformed((class, 0)))?;
    let method = Method::read(class, id, &mut reader).map_err(malformed((class, id)))?;
    if method.is_some() && !reader.is_empty() {
        return Err(malformed((class, id))(Malformed));
    }
    method.ok_or_else(|| {
        wrong(ReplyCode::CommandInvalid, format!("unknown method {id} of class {class}"), (class, id))
    })
}

impl Connection {
    /// Takes as many frames as have arrived and have room. Says whether it may be worth to try again.
    pub(super) fn take_frames(&mut self, desk: &mut Desk<'_>) -> bool {
        let mut taken = false;
        loop {
            match self.stage {
                Stage::Header => match self.frames.protocol_header() {
                    Some(header) => self.protocol_header(header, desk),
                    None => return taken,
                },
                // Before there is a user nobody can log in.
                Stage::StartOk if !desk.state.topology.is_founded() => return taken,
                Stage::Draining | Stage::Closed => return false,
                _ if self.is_stalled() && self.stage != Stage::Closing => return taken,
                _ if desk.state.work >= AMQP_WORK_PER_STEP && self.stage == Stage::Running => {
                    self.is_tired = true;
                    return taken;
                }
                stage => {
                    if stage != Stage::Running || !self.take_message(desk) {
                        match self.frames.next_frame() {
                            Ok(Some(frame)) => self.frame(frame, desk),
                            Ok(None) => return taken,
                            Err(error) => {
                                self.take_no_more(&error, desk);
                                return false;
                            }
                        }
                    }
                }
            }
            taken = true;
        }
    }

    /// What comes cannot be cut into frames.
    fn take_no_more(&mut self, error: &FrameError, desk: &mut Desk<'_>) {
        let failure = Failure::new(ReplyCode::FrameError, error.to_string());
        self.frames.clear();
        self.is_deaf = true;
        self.close_with(&failure, (0, 0), desk);
    }

    /// Takes a small message that has arrived whole, without a look at its frames one by one. Says whether there was one; whatever
    /// is wrong with what comes next is found by those who look at frames.
    fn take_message(&mut self, desk: &mut Desk<'_>) -> bool {
        let Some(message) = self.frames.peek_message(small_body, AMQP_BODY_COPIED_BYTES_MAX) else {
            return false;
        };
        let number = message.channel;
        let Ok(Method::BasicPublish(publish)) = read_method(message.method) else { return false };
        let Some(channel) = self.channels.get_mut(&number).filter(|channel| !channel.has_content()) else {
            return false;
        };
        if self.closing.contains(&number) {
            return false;
        }
        self.busy.insert(number);
        let outcome = channel.message(publish, message.header, message.body, &mut self.link, desk);
        let bytes = message.bytes;
        self.frames.skip_message(bytes);
        if let Err(failure) = outcome {
            self.fail(number, &failure, (BASIC_CLASS, PUBLISH), desk);
        }
        true
    }

    fn frame(&mut self, frame: Frame, desk: &mut Desk<'_>) {
        let channel = frame.channel;
        let outcome = match self.stage {
            Stage::Closing => {
                self.frame_while_closing(&frame, desk);
                return;
            }
            Stage::Running => self.frame_while_running(frame, desk),
            _ => self.frame_of_handshake(&frame, desk),
        };
        if let Err((failure, method)) = outcome {
            self.fail(channel, &failure, method, desk);
        }
    }

    /// After a close has been sent, nothing counts but its answer, or the same from the other side.
    fn frame_while_closing(&mut self, frame: &Frame, desk: &Desk<'_>) {
        if frame.kind != FRAME_METHOD || frame.channel != 0 {
            return;
        }
        match read_method(&frame.payload) {
            Ok(Method::ConnectionCloseOk(_)) => self.drain(desk),
            Ok(Method::ConnectionClose(_)) => {
                self.link.method(0, ConnectionCloseOk {});
                self.drain(desk);
            }
            _ => {}
        }
    }

    fn frame_of_handshake(&mut self, frame: &Frame, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        match (frame.kind, frame.channel) {
            (FRAME_HEARTBEAT, 0) => Ok(()),
            (FRAME_METHOD, 0) => {
                let method = read_method(&frame.payload)?;
                let about = method.class_and_id();
                self.handshake(method, desk).map_err(|failure| (failure, about))
            }
            _ => Err(wrong(ReplyCode::UnexpectedFrame, "the connection is not open yet", (0, 0))),
        }
    }

    fn frame_while_running(&mut self, frame: Frame, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let number = frame.channel;
        match frame.kind {
            FRAME_HEARTBEAT if number == 0 => Ok(()),
            FRAME_METHOD if number == 0 => self.own_method(&frame, desk),
            FRAME_METHOD => self.channel_method(number, frame, desk),
            FRAME_HEADER | FRAME_BODY if number != 0 => {
                if self.closing.contains(&number) {
                    return Ok(());
                }
                self.busy.insert(number);
                let Some(channel) = self.channels.get_mut(&number) else {
                    return Err(wrong(ReplyCode::ChannelError, "expected 'channel.open'", (0, 0)));
                };
                let outcome = if frame.kind == FRAME_HEADER {
                    channel.header(frame.payload, &mut self.link, desk)
                } else {
                    channel.body(frame.payload, &mut self.link, desk)
                };
                outcome.map_err(|failure| (failure, (60, 40)))
            }
            FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT => {
                let text = format!("a frame of type {} does not belong on channel {number}", frame.kind);
                Err(wrong(ReplyCode::UnexpectedFrame, text, (0, 0)))
            }
            kind => {
                self.is_deaf = true;
                let failure = Failure::new(ReplyCode::FrameError, format!("unknown frame type {kind}"));
                self.close_with(&failure, (0, 0), desk);
                Ok(())
            }
        }
    }

    /// A method about the connection as a whole.
    fn own_method(&mut self, frame: &Frame, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let method = read_method(&frame.payload)?;
        match method {
            Method::ConnectionClose(_) => self.leave(desk),
            Method::ConnectionCloseOk(_) => self.drain(desk),
            // Who is logged in with a password has none that runs out.
            Method::ConnectionUpdateSecret(_) => self.link.method(0, ConnectionUpdateSecretOk {}),
            other => {
                let (class, id) = other.class_and_id();
                return Err(match class {
                    CONNECTION_CLASS => {
                        wrong(ReplyCode::CommandInvalid, "this method is not expected now", (class, id))
                    }
                    _ => {
                        wrong(ReplyCode::ChannelError, "a method of a channel came on channel 0", (class, id))
                    }
                });
            }
        }
        Ok(())
    }

    fn channel_method(&mut self, number: u16, frame: Frame, desk: &mut Desk<'_>) -> Result<(), Wrong> {
        let closing = self.closing.contains(&number);
        let method = match read_method(&frame.payload) {
            Ok(method) => method,
            Err(_) if closing => return Ok(()),
            Err(wrong) => return Err(wrong),
        };
        let about = method.class_and_id();
        self.busy.insert(number);
        if self.channels.get(&number).is_some_and(Channel::has_content) {
            let text = "expected content header for class 60, got non content header frame instead";
            return Err(wrong(ReplyCode::UnexpectedFrame, text, (60, 40)));
        }
        match method {
            Method::ChannelCloseOk(_) => {
                self.closing.remove(&number);
                return Ok(());
            }
            Method::ChannelClose(_) => {
                self.closing.remove(&number);
                if let Some(mut channel) = self.channels.remove(&number) {
                    channel.close(&mut self.link, desk);
                }
                self.link.method(number, ChannelCloseOk {});
                return Ok(());
            }
            _ if closing => return Ok(()),
            _ => {}
        }
        if let Method::ChannelOpen(_) = method {
            return self.open_channel(number, about, desk);
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            // Settlements may come late, for a channel that has just been closed.
            if matches!(method, Method::BasicAck(_) | Method::BasicNack(_) | Method::BasicReject(_)) {
                return Ok(());
            }
            return Err(wrong(ReplyCode::ChannelError, "expected 'channel.open'", about));
        };
        let begins_message = matches!(method, Method::BasicPublish(_));
        channel.method(method, &mut self.link, desk).map_err(|failure| (failure, about))?;
        if channel.is_waiting() {
            self.waiting = Some(number);
        }
        if begins_message {
            channel.keep_method(frame.payload);
        }
        Ok(())
    }

    fn open_channel(&mut self, number: u16, about: (u16, u16), desk: &Desk<'_>) -> Result<(), Wrong> {
        if self.channels.contains_key(&number) {
            return Err(wrong(ReplyCode::ChannelError, "second 'channel.open' seen", about));
        }
        let max = self.channel_max;
        if max > 0 && (number > max || self.channels.len() >= usize::from(max)) {
            let open = self.channels.len();
            let text =
                format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return Err(wrong(ReplyCode::NotAllowed, text, about));
        }
        if desk.state.everybody.kept.channels >= AMQP_CHANNELS_PER_SHARD_MAX {
            let text =
                format!("reached maximum ({AMQP_CHANNELS_PER_SHARD_MAX}) of channels per core of this node");
            return Err(wrong(ReplyCode::NotAllowed, text, about));
        }
        if let Some(limit) = desk.state.topology.user_limits(&self.link.user).and_then(Limits::channels) {
            let all = desk.state.census.count(&Holder::User(self.link.user.clone())).channels;
            // Those of this connection that have come and gone since they were counted count, too.
            if all - self.seats.channels + self.channels.len() as u64 >= limit {
                let user = Text(&self.link.user);
                let text = format!(
                    "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({limit})"
                );
                return Err(wrong(ReplyCode::NotAllowed, text, (0, 0)));
            }
        }
        self.lives += 1;
        self.channels.insert(number, Channel::new(self.link.who(number, self.lives)));
        self.link.method(number, ChannelOpenOk { channel_id: Long(b"") });
        Ok(())
    }
}
