//! What comes to a client, and what it must be.

use millstream::amqp::codec::{
    ChannelCloseOk, ConnectionCloseOk, FRAME_BODY, FRAME_EXTRA_BYTES, FRAME_HEAD_BYTES, FRAME_HEADER,
    FRAME_HEARTBEAT, FRAME_METHOD, Header, Method, Reader, Short,
};

use super::channel::{Expected, State};
use super::client::{Client, FRAME_BYTES_MAX, Life};
use super::content::{Coming, Kind};
use super::messages::Messages;

impl Client {
    /// Takes what has come.
    pub fn take(&mut self, messages: &mut Messages) {
        if self.life == Life::Over {
            return;
        }
        let is_closed = self.peer.is_closed();
        self.inbox.extend(self.peer.received());
        while let Some((head, _)) = self.inbox.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let [kind, high, low, len @ ..] = *head;
            let whole = u32::from_be_bytes(len) as usize + FRAME_EXTRA_BYTES;
            assert!(whole <= FRAME_BYTES_MAX, "a frame of {whole} bytes");
            if self.inbox.len() < whole {
                break;
            }
            let frame: Vec<u8> = self.inbox.drain(..whole).collect();
            self.frame(kind, u16::from_be_bytes([high, low]), &frame[FRAME_HEAD_BYTES..whole - 1], messages);
        }
        if is_closed {
            // Whoever does not introduce itself in time is hung up on, and so is whoever does not read that the connection ends.
            let is_silent = self.is_late() || self.was_deaf && self.life != Life::Open;
            let is_told = is_silent || !matches!(self.life, Life::Open | Life::Doomed(_));
            assert!(is_told, "{self:?} is hung up on without a word");
            let may_be_cut = is_silent || self.life == Life::Garbled;
            assert!(self.inbox.is_empty() || may_be_cut, "{self:?} is cut off within a frame");
            self.life = Life::Over;
        }
    }

    fn frame(&mut self, kind: u8, number: u16, payload: &[u8], messages: &mut Messages) {
        assert_ne!(self.life, Life::Told, "nothing follows the end of the connection");
        if kind == FRAME_METHOD {
            let mut reader = Reader::new(payload);
            let mut short = || reader.u16().expect("a method has a class and a number");
            let (class, id) = (short(), short());
            let method = Method::read(class, id, &mut reader).expect("a method is sound").expect("and known");
            if number == 0 {
                self.own_method(&method);
            } else {
                self.come(number, &method, messages);
            }
            return;
        }
        assert!(kind != FRAME_HEARTBEAT || number == 0, "heartbeats are the connection's");
        if kind == FRAME_HEARTBEAT {
            return;
        }
        let channel = self.channel(number);
        let coming = channel.coming.as_mut().expect("a method comes before a header and a body");
        match kind {
            FRAME_HEADER => coming.header(Header::read(payload).expect("a header is sound").body_bytes),
            FRAME_BODY => coming.body(payload),
            other => panic!("a frame of kind {other}"),
        }
        if let Some(id) = coming.number()
            && let Some(coming) = channel.coming.take()
        {
            self.came(number, coming.kind, id, messages);
        }
    }

    fn own_method(&mut self, method: &Method<'_>) {
        match (method, self.life) {
            (Method::ConnectionClose(close), Life::Doomed(code)) => {
                assert_eq!(close.reply_code, code, "{method:?}");
                self.is_told();
            }
            (Method::ConnectionClose(_), Life::Garbled) => self.is_told(),
            (Method::ConnectionClose(_), _) => panic!("{self:?} has done nothing wrong: {method:?}"),
            (Method::ConnectionCloseOk(_), Life::Leaving) => self.life = Life::Told,
            _ => assert_eq!(self.expected.pop_front(), Some(method.class_and_id())),
        }
    }

    /// The connection ends.
    fn is_told(&mut self) {
        self.write_method(0, &ConnectionCloseOk {}.into());
        self.send(usize::MAX);
        self.life = Life::Told;
    }

    /// A method comes on a channel.
    fn come(&mut self, number: u16, method: &Method<'_>, messages: &mut Messages) {
        let text = |short: Short<'_>| String::from_utf8_lossy(short.0).into_owned();
        let channel = self.channel(number);
        assert!(channel.coming.is_none(), "{method:?} within a message");
        let kind = match method {
            Method::BasicDeliver(deliver) => Kind::Delivered {
                consumer: text(deliver.consumer_tag),
                tag: deliver.delivery_tag,
                redelivered: deliver.redelivered,
            },
            Method::BasicGetOk(got) => {
                let Some(Expected::Got(queue, no_ack)) = channel.expected.pop_front() else {
                    panic!("{method:?} was not asked for")
                };
                channel.got = Some((queue, no_ack));
                Kind::Got { tag: got.delivery_tag, redelivered: got.redelivered }
            }
            Method::BasicReturn(came) => {
                assert_eq!(came.reply_code, 312, "{method:?}");
                Kind::Returned
            }
            Method::BasicAck(ack) => return channel.confirmed(ack.delivery_tag, ack.multiple, messages),
            Method::BasicNack(_) => panic!("nothing is in the way of a message: {method:?}"),
            Method::BasicGetEmpty(_) => {
                let front = channel.expected.pop_front();
                assert!(matches!(front, Some(Expected::Got(..))), "{method:?} instead of {front:?}");
                return;
            }
            _ => return self.answered(number, method, messages),
        };
        channel.coming = Some(Coming::new(kind));
    }

    /// An answer comes.
    fn answered(&mut self, number: u16, method: &Method<'_>, messages: &mut Messages) {
        let channel = self.channel(number);
        let Some(expected) = channel.expected.pop_front() else { panic!("{method:?} was not asked for") };
        assert_eq!(expected.class_and_id(), method.class_and_id(), "{method:?} instead of {expected:?}");
        match expected {
            Expected::Done(..) | Expected::Got(..) => {}
            Expected::Opened => {
                (channel.life_come, channel.last_tag) = (channel.life_come + 1, 0);
            }
            Expected::Closed => self.is_closed(number),
            Expected::Declared(queue) => messages.told(queue),
            Expected::Deleted(queue) => {
                let of_it = self.consumers.values_mut().filter(|consumer| Some(consumer.queue) == queue);
                of_it.for_each(|consumer| consumer.is_over = true);
            }
            Expected::Consuming(tag) => {
                assert!(matches!(method, Method::BasicConsumeOk(ok) if ok.consumer_tag.0 == tag.as_bytes()));
            }
            Expected::Cancelled(tag) => {
                assert!(matches!(method, Method::BasicCancelOk(ok) if ok.consumer_tag.0 == tag.as_bytes()));
                if let Some(consumer) = self.consumers.get_mut(&tag) {
                    consumer.is_over = true;
                }
            }
            Expected::Recovered => {
                channel.recovering = channel.recovering.saturating_sub(1);
                channel.unsettled.clear();
            }
            Expected::Committed(ids) => ids.into_iter().for_each(|id| messages.promised(id)),
            Expected::Failed(code, is_answered) => {
                assert!(
                    matches!(method, Method::ChannelClose(close) if close.reply_code == code),
                    "{method:?}: {code}"
                );
                if is_answered {
                    channel.state = State::Closed;
                    self.write_method(number, &ChannelCloseOk {}.into());
                }
                self.is_closed(number);
            }
        }
    }

    /// A channel is over, by what has come.
    fn is_closed(&mut self, number: u16) {
        let channel = self.channel(number);
        channel.unsettled.clear();
        let life = channel.life_come;
        let own = self.consumers.values_mut().filter(|one| one.channel == number && one.life <= life);
        own.for_each(|consumer| consumer.is_over = true);
    }

    /// A message has come whole.
    fn came(&mut self, number: u16, kind: Kind, id: u64, messages: &mut Messages) {
        let channel = self.channels.get_mut(&number).expect("it has come there");
        let (queue, no_ack, tag, redelivered) = match kind {
            Kind::Returned => {
                let life = channel.life_come;
                assert!(channel.returning.remove(&(life, id)), "message {id} comes back for no reason");
                return;
            }
            Kind::Got { tag, redelivered } => {
                let (queue, no_ack) = channel.got.take().expect("it was asked for");
                messages.delivered(id, queue, redelivered, no_ack);
                (queue, no_ack, tag, redelivered)
            }
            Kind::Delivered { consumer, tag, redelivered } => {
                let known = self.consumers.get_mut(&consumer).expect("whom it is for");
                assert!(
                    known.channel == number && !known.is_over,
                    "message {id} comes for {consumer}, who is not here"
                );
                let publisher = messages.delivered(id, known.queue, redelivered, known.no_ack);
                if let Some(publisher) = publisher.filter(|_| !redelivered)
                    && let Some(last) = known.last.insert(publisher, id)
                {
                    assert!(last < id, "message {id} comes behind {last}");
                }
                (known.queue, known.no_ack, tag, redelivered)
            }
        };
        assert!(
            tag > channel.last_tag,
            "tag {tag} of {queue}, {redelivered}, comes behind {}",
            channel.last_tag
        );
        channel.last_tag = tag;
        if !no_ack {
            channel.unsettled.insert(tag, id);
        }
    }
}
