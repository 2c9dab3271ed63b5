//! What a client does wrong, and what it is told.

use millstream::amqp::codec::{
    BasicAck, BasicCancel, BasicConsume, BasicPublish, BasicQos, BasicRecover, ChannelClose, ChannelFlow,
    ChannelOpen, ExchangeDeclare, FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Method,
    Properties, Short, Writer,
};

use crate::client::{Client, raw};
use crate::node::Node;

fn ends_connection(shown: &str, code: u16, text: &str) {
    let start = format!("0 ConnectionClose {{ reply_code: {code}, reply_text: {text:?}");
    assert!(shown.contains(&start), "{shown}\n{start}");
}

#[test]
fn what_is_not_implemented_ends_the_connection() {
    let publish = BasicPublish { immediate: true, ..BasicPublish::default() };
    for (method, text) in [
        (Method::from(publish), "NOT_IMPLEMENTED - immediate=true"),
        (BasicRecover { requeue: false }.into(), "NOT_IMPLEMENTED - requeue=false"),
        (ChannelFlow { active: false }.into(), "NOT_IMPLEMENTED - active=false"),
        (
            BasicQos { prefetch_size: 5, ..BasicQos::default() }.into(),
            "NOT_IMPLEMENTED - prefetch_size!=0 (5)",
        ),
    ] {
        let mut node = Node::new();
        let client = Client::with_channel(&mut node);
        let shown = client.ask(&mut node, 1, method);
        ends_connection(&shown, 540, text);
    }
}

#[test]
fn a_channel_is_opened_once_and_first() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    ends_connection(
        &client.ask(&mut node, 1, ChannelOpen::default()),
        504,
        "CHANNEL_ERROR - second 'channel.open' seen",
    );
    let client = Client::open(&mut node);
    assert_eq!(client.ask(&mut node, 5, BasicAck { delivery_tag: 1, multiple: false }), "", "it may be late");
    let shown = client.ask(&mut node, 5, BasicConsume::default());
    ends_connection(&shown, 504, "CHANNEL_ERROR - expected 'channel.open'");
}

#[test]
fn frames_that_do_not_belong_where_they_are_end_the_connection() {
    let publish = Method::from(BasicPublish::default());
    let frame = |kind: u8, channel: u16, payload: &[u8]| {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).frame(kind, channel, |writer| writer.bytes(payload));
        bytes
    };
    let method = |method: Method<'_>| {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).method(1, &method);
        bytes
    };
    let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    for (bytes, code) in [
        (frame(FRAME_HEARTBEAT, 1, b""), 505),
        (frame(FRAME_HEADER, 1, &header), 505),
        (frame(FRAME_BODY, 1, b"x"), 505),
        ([method(publish), frame(FRAME_BODY, 1, b"x")].concat(), 505),
        ([method(publish), frame(FRAME_HEADER, 1, &header), frame(FRAME_BODY, 1, b"xx")].concat(), 505),
        ([method(publish), method(BasicCancel::default().into())].concat(), 505),
        (frame(FRAME_METHOD, 1, &[0, 60, 0, 20, 0]), 501),
        (frame(FRAME_METHOD, 1, &[0, 60, 0, 99]), 503),
        (frame(FRAME_METHOD, 0, &[0, 60, 0, 100, 0]), 504),
        (frame(FRAME_METHOD, 0, &[0, 10, 0, 61]), 503),
        (frame(7, 1, b""), 501),
        (b"\x01\x00\x01\x00\x00\x00\x01x\x00".to_vec(), 501),
        (b"\x01\x00\x01\xFF\xFF\xFF\xFF".to_vec(), 501),
    ] {
        let mut node = Node::new();
        let client = Client::with_channel(&mut node);
        client.raw(&mut node, &bytes);
        let shown = client.shown(&mut node);
        assert!(shown.contains(&format!("0 ConnectionClose {{ reply_code: {code}")), "{bytes:?}: {shown}");
        client.raw(&mut node, b"anything that may still be on its way");
    }
}

#[test]
fn what_a_message_lacks_ends_the_channel() {
    let publish = |exchange: &'static str| BasicPublish {
        exchange: Short(exchange.as_bytes()),
        ..BasicPublish::default()
    };
    let none = Properties::default();
    let user = Properties { user_id: Some(b"somebody"), ..none };
    let expiration = Properties { expiration: Some(b"soon"), ..none };
    for (message, text) in [
        (
            Client::message(1, publish("none"), &raw(&none), b"m"),
            "NOT_FOUND - no exchange 'none' in vhost '/'",
        ),
        (
            Client::message(1, publish("amq.rabbitmq.trace"), &raw(&none), b"m"),
            "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'",
        ),
        (
            Client::message(1, publish(""), &raw(&user), b"m"),
            "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
        ),
        (
            Client::message(1, publish(""), &raw(&expiration), b"m"),
            "PRECONDITION_FAILED - invalid expiration 'soon': no_integer",
        ),
    ] {
        let mut node = Node::new();
        let client = Client::with_channel(&mut node);
        client.raw(&mut node, &message);
        let shown = client.shown(&mut node);
        assert!(shown.starts_with("1 ChannelClose"), "{shown}");
        assert!(shown.contains(&format!("reply_text: {text:?}, class: 60, method: 40")), "{shown}");
        client.open_channel(&mut node, 2);
    }
}

#[test]
fn a_message_that_is_too_large_is_not_even_awaited() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    writer.method(1, &BasicPublish::default().into());
    writer.frame(FRAME_HEADER, 1, |writer| {
        writer.u32(60 << 16);
        writer.u64(u64::MAX);
        writer.u16(0);
    });
    writer.frame(FRAME_BODY, 1, |writer| writer.bytes(b"it goes on"));
    client.raw(&mut node, &bytes);
    let shown = client.shown(&mut node);
    let text =
        "PRECONDITION_FAILED - message size 18446744073709551615 is larger than configured max size 16777216";
    assert!(
        shown.starts_with(&format!("1 ChannelClose {{ reply_code: 406, reply_text: {text:?}")),
        "{shown}"
    );
    client.open_channel(&mut node, 2);
}

#[test]
fn within_a_message_there_is_no_method() {
    for method in [Method::from(ChannelClose::default()), BasicQos::default().into()] {
        let mut node = Node::new();
        let client = Client::with_channel(&mut node);
        client.method(&mut node, 1, BasicPublish::default());
        let shown = client.ask(&mut node, 1, method);
        let text =
            "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
        ends_connection(&shown, 505, text);
    }
}

#[test]
fn a_consumers_tag_is_used_once() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &millstream::amqp::codec::TableWriter::default());
    let consume = BasicConsume { queue: Short(b"q"), consumer_tag: Short(b"t"), ..BasicConsume::default() };
    client.ask(&mut node, 1, consume);
    let shown = client.ask(&mut node, 1, consume);
    ends_connection(&shown, 530, "NOT_ALLOWED - attempt to reuse consumer tag 't'");
    assert_eq!(node.engine.consumer_count(), 0);
}

#[test]
fn frames_behind_a_failure_are_dropped_until_it_is_answered() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let passive = ExchangeDeclare { exchange: Short(b"none"), passive: true, ..ExchangeDeclare::default() };
    assert!(client.ask(&mut node, 1, passive).starts_with("1 ChannelClose"));
    assert_eq!(client.ask(&mut node, 1, passive), "");
    client.publish(&mut node, 1, "", "q", "m");
    assert_eq!(client.shown(&mut node), "");
    client.method(&mut node, 1, millstream::amqp::codec::ChannelCloseOk {});
    client.open_channel(&mut node, 1);
}

#[test]
fn what_nothing_can_be_stored_for_is_told_even_if_nobody_waits_for_word() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &millstream::amqp::codec::TableWriter::default());
    node.engine.is_full = true;
    client.publish(&mut node, 1, "", "q", "m");
    let shown = client.shown(&mut node);
    ends_connection(&shown, 506, "RESOURCE_ERROR - the disk is full");
}
