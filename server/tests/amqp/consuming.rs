//! Messages on their way to consumers, and how they are settled.

use millstream::amqp::codec::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicPublish, BasicQos, BasicRecover,
    BasicReject, ChannelClose, FRAME_BODY, FRAME_HEADER, Properties, QueueDelete, Short, TableWriter, Value,
    Writer,
};

use millstream_engine::buffer::Pool;
use millstream_engine::limits::{JOURNAL_SLAB_BYTES, LOOSE_BYTES};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;

fn consume(tag: &str) -> BasicConsume<'_> {
    BasicConsume { queue: Short(b"q"), consumer_tag: Short(tag.as_bytes()), ..BasicConsume::default() }
}

fn ack(delivery_tag: u64) -> BasicAck {
    BasicAck { delivery_tag, multiple: false }
}

/// The bodies of what has come, with a star if it had come before.
fn bodies(shown: &str) -> Vec<String> {
    let mut again = false;
    let mut bodies = Vec::new();
    for line in shown.lines() {
        if line.contains("BasicDeliver") || line.contains("BasicGetOk") {
            again = line.contains("redelivered: true");
        }
        if let Some((_, body)) = line.split_once(" body ") {
            let star = if again { "*" } else { "" };
            bodies.push(format!("{}{star}", body.trim_matches('"')));
        }
    }
    bodies
}

fn with_queue(node: &mut Node, messages: &[&str]) -> Client {
    let client = Client::with_channel(node);
    client.queue(node, "q", &TableWriter::default());
    for message in messages {
        client.publish(node, 1, "", "q", message);
    }
    client
}

#[test]
fn a_delivery_has_everything_that_was_published() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &[]);
    assert_eq!(client.ask(&mut node, 1, consume("t")), "1 BasicConsumeOk { consumer_tag: \"t\" }");
    let headers = TableWriter::default().with("h", Value::I32(1));
    let properties = Properties {
        headers: Some(headers.table()),
        delivery_mode: Some(2),
        correlation_id: Some(b"c"),
        ..Properties::default()
    };
    client.publish_with(&mut node, 1, "", "q", &properties, b"hello");
    assert_eq!(
        client.shown(&mut node),
        "1 BasicDeliver { consumer_tag: \"t\", delivery_tag: 1, redelivered: false, exchange: \"\", routing_key: \"q\" }\n\
         1 header 5 bytes {h: 1} correlation_id=c persistent\n1 body \"hello\""
    );
    client.publish(&mut node, 1, "", "q", "");
    let shown = client.shown(&mut node);
    assert!(shown.ends_with("header 0 bytes "), "an empty body has no frame: {shown}");
}

#[test]
fn a_large_message_comes_in_frames_of_the_size_agreed_on() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &[]);
    client.ask(&mut node, 1, consume("t"));
    let body: Vec<u8> = (0..300_000_u32).map(|byte| byte as u8).collect();
    client.publish_with(&mut node, 1, "", "q", &Properties::default(), &body);
    let came = client.came(&mut node);
    let sizes: Vec<usize> = came[2..].iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(sizes, [131_064, 131_064, 300_000 - 2 * 131_064]);
    assert_eq!(came[2..].iter().flat_map(|frame| frame.payload.clone()).collect::<Vec<u8>>(), body);
}

#[test]
fn a_body_may_come_in_the_smallest_pieces() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &[]);
    client.ask(&mut node, 1, BasicConsume { no_ack: true, ..consume("t") });
    let body: Vec<u8> = (0..5_000_u32).map(|byte| byte as u8).collect();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    writer.method(1, &BasicPublish { routing_key: Short(b"q"), ..BasicPublish::default() }.into());
    writer.frame(FRAME_HEADER, 1, |writer| {
        writer.u32(60 << 16);
        writer.u64(body.len() as u64);
        writer.u16(0);
    });
    for byte in &body {
        writer.frame(FRAME_BODY, 1, |_| {});
        writer.frame(FRAME_BODY, 1, |writer| writer.u8(*byte));
    }
    for piece in bytes.chunks(1000) {
        client.raw(&mut node, piece);
    }
    let came = client.came(&mut node);
    assert!(came.last().unwrap().payload == body, "another body");
}

#[test]
fn a_prefetch_holds_for_a_consumer_and_opens_as_it_settles() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b", "c", "d", "e"]);
    client.ask(&mut node, 1, BasicQos { prefetch_count: 2, ..BasicQos::default() });
    assert_eq!(bodies(&client.ask(&mut node, 1, consume("t"))), ["a", "b"]);
    assert_eq!(bodies(&client.ask(&mut node, 1, ack(2))), ["c"]);
    assert_eq!(bodies(&client.ask(&mut node, 1, BasicAck { delivery_tag: 0, multiple: true })), ["d", "e"]);
    client.publish(&mut node, 1, "", "q", "f");
    assert_eq!(client.shown(&mut node), "");
    assert_eq!(
        bodies(&client.ask(&mut node, 1, BasicQos { prefetch_count: 3, ..BasicQos::default() })),
        ["f"]
    );
}

#[test]
fn a_channels_prefetch_holds_for_all_its_consumers() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b", "c", "d"]);
    client.queue(&mut node, "r", &TableWriter::default());
    for message in ["x", "y"] {
        client.publish(&mut node, 1, "", "r", message);
    }
    client.ask(&mut node, 1, BasicQos { prefetch_count: 3, global: true, ..BasicQos::default() });
    assert_eq!(bodies(&client.ask(&mut node, 1, consume("t"))), ["a", "b", "c"]);
    let other = BasicConsume { queue: Short(b"r"), ..consume("u") };
    assert_eq!(bodies(&client.ask(&mut node, 1, other)), [""; 0]);
    let mut seen = Vec::new();
    for tag in 1..=6 {
        seen.extend(bodies(&client.ask(&mut node, 1, ack(tag))));
    }
    seen.sort();
    assert_eq!(seen, ["d", "x", "y"]);
}

#[test]
fn what_goes_back_goes_to_its_old_place_and_says_so() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b", "c"]);
    client.ask(&mut node, 1, BasicQos { prefetch_count: 3, ..BasicQos::default() });
    client.ask(&mut node, 1, consume("t"));
    let nack = BasicNack { delivery_tag: 2, multiple: true, requeue: true };
    assert_eq!(bodies(&client.ask(&mut node, 1, nack)), ["a*", "b*"]);
    let reject = BasicReject { delivery_tag: 3, requeue: true };
    assert_eq!(bodies(&client.ask(&mut node, 1, reject)), ["c*"]);
    let shown = client.ask(&mut node, 1, BasicRecover { requeue: true });
    assert_eq!(bodies(&shown), ["a*", "b*", "c*"]);
    assert!(shown.starts_with("1 BasicRecoverOk"), "{shown}");
    let shown = client.ask(&mut node, 1, BasicNack { delivery_tag: 0, multiple: true, requeue: false });
    assert_eq!(shown, "");
    let got = client.ask(&mut node, 1, BasicGet { queue: Short(b"q"), ..BasicGet::default() });
    assert_eq!(got, "1 BasicGetEmpty { cluster_id: \"\" }");
}

#[test]
fn how_often_a_message_of_a_quorum_queue_has_failed_is_told() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let quorum = TableWriter::default().with("x-queue-type", Value::String(b"quorum"));
    client.queue(&mut node, "q", &quorum);
    client.publish(&mut node, 1, "", "q", "a");
    client.ask(&mut node, 1, consume("t"));
    let shown = client.ask(&mut node, 1, BasicReject { delivery_tag: 1, requeue: true });
    assert!(shown.contains("header 1 bytes {x-delivery-count: 1}"), "{shown}");
}

#[test]
fn a_tag_can_be_settled_once() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a"]);
    client.ask(&mut node, 1, consume("t"));
    assert_eq!(client.ask(&mut node, 1, ack(1)), "");
    assert_eq!(
        client.ask(&mut node, 1, ack(1)),
        "1 ChannelClose { reply_code: 406, reply_text: \"PRECONDITION_FAILED - unknown delivery tag 1\", class: 60, method: 80 }"
    );
    assert_eq!(client.ask(&mut node, 1, ack(1)), "", "nothing counts before the answer");
}

#[test]
fn messages_can_be_got_one_by_one() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b", "c"]);
    let get = BasicGet { queue: Short(b"q"), ..BasicGet::default() };
    let shown = client.ask(&mut node, 1, get);
    assert_eq!(
        shown,
        "1 BasicGetOk { delivery_tag: 1, redelivered: false, exchange: \"\", routing_key: \"q\", message_count: 2 }\n\
         1 header 1 bytes \n1 body \"a\""
    );
    assert_eq!(bodies(&client.ask(&mut node, 1, BasicGet { no_ack: true, ..get })), ["b"]);
    assert_eq!(bodies(&client.ask(&mut node, 1, get)), ["c"]);
    client.ask(&mut node, 1, BasicNack { delivery_tag: 3, multiple: true, requeue: true });
    assert_eq!(bodies(&client.ask(&mut node, 1, get)), ["a*"]);
    assert_eq!(bodies(&client.ask(&mut node, 1, get)), ["c*"]);
}

#[test]
fn what_a_channel_keeps_goes_back_when_it_closes() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b", "c"]);
    client.ask(&mut node, 1, consume("t"));
    client.ask(&mut node, 1, ack(2));
    assert_eq!(client.ask(&mut node, 1, ChannelClose::default()), "1 ChannelCloseOk");
    assert_eq!(node.engine.consumer_count(), 0);
    client.open_channel(&mut node, 1);
    assert_eq!(bodies(&client.ask(&mut node, 1, consume("t"))), ["a*", "c*"]);
    node.disconnect(client.conn);
    let other = Client::with_channel(&mut node);
    assert_eq!(bodies(&other.ask(&mut node, 1, consume("t"))), ["a*", "c*"]);
}

#[test]
fn a_cancelled_consumer_keeps_what_it_has() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b"]);
    client.ask(&mut node, 1, consume("t"));
    let cancel = BasicCancel { consumer_tag: Short(b"t"), no_wait: false };
    assert_eq!(client.ask(&mut node, 1, cancel), "1 BasicCancelOk { consumer_tag: \"t\" }");
    assert_eq!(client.ask(&mut node, 1, cancel), "1 BasicCancelOk { consumer_tag: \"t\" }");
    client.ask(&mut node, 1, ack(1));
    let shown = client.ask(&mut node, 1, BasicNack { delivery_tag: 2, requeue: true, multiple: false });
    assert_eq!(shown, "");
    let get = BasicGet { queue: Short(b"q"), ..BasicGet::default() };
    assert_eq!(bodies(&client.ask(&mut node, 1, get)), ["b*"]);
}

#[test]
fn a_consumer_is_told_when_its_queue_goes() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a"]);
    client.ask(&mut node, 1, consume("t"));
    let other = Client::with_channel(&mut node);
    other.ask(&mut node, 1, QueueDelete { queue: Short(b"q"), ..QueueDelete::default() });
    assert_eq!(client.shown(&mut node), "1 BasicCancel { consumer_tag: \"t\", no_wait: true }");
    assert_eq!(client.ask(&mut node, 1, ack(1)), "", "there is nothing to settle any more");
    assert_eq!(
        client.ask(&mut node, 1, consume("t")).split(',').next(),
        Some("1 ChannelClose { reply_code: 404")
    );
}

#[test]
fn consumers_take_turns_and_tags_are_one_consumers() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &[]);
    client.ask(&mut node, 1, BasicQos { prefetch_count: 10, ..BasicQos::default() });
    client.ask(&mut node, 1, consume("t"));
    let shown = client.ask(&mut node, 1, consume(""));
    assert!(shown.contains("consumer_tag: \"amq.ctag-"), "{shown}");
    for message in ["a", "b", "c", "d"] {
        client.publish(&mut node, 1, "", "q", message);
    }
    let shown = client.shown(&mut node);
    assert_eq!(shown.matches("consumer_tag: \"t\"").count(), 2, "{shown}");
    let exclusive = client.ask(&mut node, 1, BasicConsume { exclusive: true, ..consume("e") });
    assert!(exclusive.contains("ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"), "{exclusive}");
}

#[test]
fn a_consumer_that_keeps_a_delivery_for_too_long_is_cancelled_and_others_get_it() {
    let timeout = |ms| TableWriter::default().with("x-consumer-timeout", Value::I32(ms));
    for (of_queue, of_consumer, is_cancelled) in [(1_000, 0, true), (0, 1_000, true), (0, 0, false)] {
        let mut node = Node::new();
        let (client, other) = (Client::with_channel(&mut node), Client::with_channel(&mut node));
        client.queue(&mut node, "q", &timeout(of_queue));
        let arguments = timeout(of_consumer);
        let slow = BasicConsume { arguments: arguments.table(), ..consume("slow") };
        client.ask(&mut node, 1, BasicQos { prefetch_count: 1, ..BasicQos::default() });
        client.ask(&mut node, 1, slow);
        client.publish(&mut node, 1, "", "q", "a");
        assert_eq!(bodies(&client.shown(&mut node)), ["a"]);
        node.advance(Nanos::from_millis(5_000));
        let get = BasicGet { queue: Short(b"q"), no_ack: true, ..BasicGet::default() };
        let got = bodies(&other.ask(&mut node, 1, get));
        if is_cancelled {
            assert_eq!(client.shown(&mut node), "1 BasicCancel { consumer_tag: \"slow\", no_wait: true }");
            assert_eq!(got, ["a*"]);
            assert_eq!(client.ask(&mut node, 1, ack(1)), "", "it may come late");
        } else {
            assert_eq!((client.shown(&mut node), got.len()), (String::new(), 0), "long jobs are no mistake");
        }
    }
}

#[test]
fn what_comes_back_from_another_consumer_is_not_settled_with_what_lies_around_it() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &["a", "b", "c"]);
    let other = Client::with_channel(&mut node);
    for one in [&client, &other] {
        one.ask(&mut node, 1, BasicQos { prefetch_count: 1, ..BasicQos::default() });
        one.ask(&mut node, 1, consume("t"));
    }
    // One keeps the first and the third, the other the second.
    client.ask(&mut node, 1, BasicQos { prefetch_count: 3, ..BasicQos::default() });
    node.hold = true;
    other.method(&mut node, 1, BasicNack { delivery_tag: 1, multiple: false, requeue: true });
    other.method(&mut node, 1, BasicCancel { consumer_tag: Short(b"t"), no_wait: true });
    client.raw(&mut node, &{
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).method(1, &BasicAck { delivery_tag: 2, multiple: true }.into());
        bytes
    });
    // The second is given to the one before its settlements arrive.
    node.release_all();
    assert_eq!(bodies(&client.shown(&mut node)), ["b*"]);
    node.disconnect(client.conn);
    let get = BasicGet { queue: Short(b"q"), ..BasicGet::default() };
    assert_eq!(bodies(&other.ask(&mut node, 1, get)), ["b*"], "it was not settled");
}

#[test]
fn nothing_more_is_asked_for_while_a_client_does_not_read() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &[]);
    client.ask(&mut node, 1, BasicConsume { no_ack: true, ..consume("t") });
    node.hold_sends = true;
    let publisher = Client::with_channel_quietly(&mut node);
    let body = vec![0; 100_000];
    for _ in 0..100 {
        let frames = Client::message(
            1,
            millstream::amqp::codec::BasicPublish { routing_key: Short(b"q"), ..Default::default() },
            &[0, 0],
            &body,
        );
        publisher.raw(&mut node, &frames);
    }
    let mut received = 0;
    let mut first = None;
    loop {
        received += client.came(&mut node).iter().filter(|frame| frame.kind == 1).count();
        first.get_or_insert(received);
        if !node.socket(client.conn).sending {
            break;
        }
        node.send_done(client.conn);
    }
    assert_eq!(received, 100, "everything comes in the end");
}

/// Memory that deliveries keep in the journal's slabs.
fn slab_bytes(node: &Node) -> usize {
    node.engine.slabs.as_ref().unwrap().0.usage().in_use
}

#[test]
fn a_delivery_that_waits_for_acknowledgements_keeps_no_slab() {
    for bytes in [JOURNAL_SLAB_BYTES, LOOSE_BYTES] {
        let mut node = Node::new();
        let client = with_queue(&mut node, &["a", "b", "c"]);
        client.queue(&mut node, "r", &TableWriter::default());
        client.publish(&mut node, 1, "", "r", "x");
        node.engine.slabs = Some((Pool::new(64 << 20), bytes));
        client.ask(&mut node, 1, BasicQos { prefetch_count: 3, global: true, ..BasicQos::default() });
        assert_eq!(bodies(&client.ask(&mut node, 1, consume("t"))), ["a", "b", "c"]);
        // What comes for another consumer waits until some of these are settled.
        let other = BasicConsume { queue: Short(b"r"), ..consume("u") };
        assert_eq!(bodies(&client.ask(&mut node, 1, other)), [""; 0]);
        assert_eq!(slab_bytes(&node), 0);
        assert_eq!(bodies(&client.ask(&mut node, 1, ack(1))), ["x"]);
    }
}

#[test]
fn deliveries_behind_a_slow_send_keep_no_slab() {
    let mut node = Node::new();
    let client = with_queue(&mut node, &[]);
    client.ask(&mut node, 1, BasicConsume { no_ack: true, ..consume("t") });
    node.engine.slabs = Some((Pool::new(64 << 20), JOURNAL_SLAB_BYTES));
    node.hold_sends = true;
    let body = "b".repeat(100_000);
    client.publish(&mut node, 1, "", "q", &body);
    assert!(slab_bytes(&node) > 0, "what is being sent is where it was");
    node.step(AppEvent::Slow(client.conn));
    let before = slab_bytes(&node);
    for _ in 0..3 {
        client.publish(&mut node, 1, "", "q", &body);
    }
    assert_eq!(slab_bytes(&node), before, "what comes behind it is copied");
    node.hold_sends = false;
    node.send_done(client.conn);
    assert_eq!((slab_bytes(&node), bodies(&client.shown(&mut node)).len()), (0, 4));
}
