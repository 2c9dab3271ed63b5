//! What a client can have kept for it in memory, and how long it can keep a shard busy.

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicPublish, BasicQos, ConfirmSelect, FRAME_BODY, FRAME_HEADER, Properties,
    QueueDeclare, Short, Table, TableWriter, TxSelect, Value, Writer,
};
use millstream::amqp::kept::Kept;
use millstream::amqp::topology::entries::{ApplyTo, POLICY, PolicyValue, key};
use millstream::config::ServerConfig;
use millstream::limits::{
    AMQP_KEYS_PER_MESSAGE_MAX, AMQP_POLICY_LOOKS_PER_TURN, AMQP_SEND_BYTES_GIVEN_BACK,
    AMQP_SEND_BYTES_HUNG_UP, AMQP_UNCONFIRMED_MAX, AMQP_UNFINISHED_BYTES_MAX, AMQP_WORK_PER_STEP,
};
use millstream_engine::buffer::Slice;
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;
use crate::permissions::set;

const TOO_MUCH: &str = "0 ConnectionClose { reply_code: 506, reply_text: \"RESOURCE_ERROR - messages that have arrived in part, \
                        and transactions, are too large in sum\", class: 0, method: 0 }";

fn to(key: &str) -> BasicPublish<'_> {
    BasicPublish { routing_key: Short(key.as_bytes()), ..BasicPublish::default() }
}

/// The beginning of a message of twice `bytes`.
fn half(channel: u16, bytes: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut writer = Writer::new(&mut frames);
    writer.method(channel, &to("q").into());
    writer.frame(FRAME_HEADER, channel, |writer| {
        writer.u32(60 << 16);
        writer.u64(2 * bytes as u64);
        writer.u16(0);
    });
    for piece in vec![7; bytes].chunks(100_000) {
        writer.frame(FRAME_BODY, channel, |writer| writer.bytes(piece));
    }
    frames
}

#[test]
fn messages_that_arrive_on_many_channels_count_together() {
    let mut node = Node::new();
    let (client, other) = (Client::open(&mut node), Client::open(&mut node));
    for channel in 1.. {
        client.open_channel(&mut node, channel);
        client.raw(&mut node, &half(channel, 4 << 20));
        let unfinished = node.broker.amqp_kept().unfinished;
        assert!(unfinished <= AMQP_UNFINISHED_BYTES_MAX, "{unfinished} bytes");
        let shown = client.shown(&mut node);
        if !shown.is_empty() {
            assert_eq!((&shown[..], usize::from(channel)), (TOO_MUCH, AMQP_UNFINISHED_BYTES_MAX >> 22));
            break;
        }
    }
    assert_eq!(node.broker.amqp_kept().unfinished, 0);
    other.open_channel(&mut node, 1);
}

#[test]
fn transactions_of_many_channels_count_together() {
    let mut node = Node::new();
    let client = Client::open(&mut node);
    let body = vec![7; 6 << 20];
    for channel in 1.. {
        client.open_channel(&mut node, channel);
        client.ask(&mut node, channel, TxSelect {});
        client.raw(&mut node, &Client::message(channel, to("q"), &[0, 0], &body));
        let shown = client.shown(&mut node);
        if !shown.is_empty() {
            assert_eq!((&shown[..], channel), (TOO_MUCH, 11));
            break;
        }
    }
    assert_eq!(node.broker.amqp_kept().unfinished, 0);
}

#[test]
fn of_many_connections_with_too_much_together_those_with_most_end() {
    let max = 4 << 20;
    let mut node = Node::with(ServerConfig { partial_bytes_max: max, ..ServerConfig::default() });
    let modest = Client::with_channel(&mut node);
    modest.raw(&mut node, &half(1, 1000));
    for _ in 0..20 {
        let client = Client::with_channel(&mut node);
        client.raw(&mut node, &half(1, 500_000));
        let unfinished = node.broker.amqp_kept().unfinished;
        assert!(unfinished <= max + 500_000, "{unfinished} bytes");
    }
    assert_eq!(modest.shown(&mut node), "");
    modest.raw(&mut node, &half(1, 100)[..0]);
}

#[test]
fn a_message_that_is_long_in_coming_keeps_nothing_of_what_it_is_received_into() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    // Most of what came together is a part of it.
    let block = Slice::from(half(1, 50_000));
    node.step(AppEvent::Received(client.conn, block.clone()));
    assert!(node.broker.amqp_kept().unfinished > 50_000);
    assert!(block.is_last());
    // The same of what waits because something else is under way.
    node.hold = true;
    client.open_channel(&mut node, 2);
    client.method(&mut node, 2, QueueDeclare { queue: Short(b"q"), ..QueueDeclare::default() });
    let block = Slice::from(half(3, 50_000));
    node.step(AppEvent::Received(client.conn, block.clone()));
    assert!(block.is_last());
}

/// Has a client consume from so many queues, and not read any more when each of them gets two messages of a megabyte.
pub fn hungry(node: &mut Node, client: Client, queues: usize, no_ack: bool) -> Client {
    let publisher = Client::with_channel(node);
    for queue in 0..queues {
        let name = format!("q{queue}");
        client.queue(node, &name, &TableWriter::default());
        client.ask(
            node,
            1,
            BasicConsume { queue: Short(name.as_bytes()), no_ack, ..BasicConsume::default() },
        );
    }
    node.hold_sends = true;
    let body = vec![7; 1 << 20];
    for queue in 0..2 * queues {
        let name = format!("q{}", queue % queues);
        publisher.raw(node, &Client::message(1, to(&name), &[0, 0], &body));
    }
    node.disconnect(publisher.conn);
    client
}

#[test]
fn what_many_consumers_of_a_client_that_does_not_read_were_to_be_given_goes_back() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let client = hungry(&mut node, client, 60, false);
    let sending = node.broker.amqp_kept().sending;
    assert!(sending > 8 << 20, "{sending}");
    assert!(sending <= AMQP_SEND_BYTES_GIVEN_BACK + (2 << 20), "{sending} bytes wait");
    // Everything comes in the end, and once.
    let mut tags = 0;
    let mut bodies = 0;
    loop {
        let came = client.came(&mut node);
        bodies +=
            came.iter().filter(|came| came.kind == FRAME_BODY).map(|came| came.payload.len()).sum::<usize>();
        tags += came.iter().filter(|came| came.payload.starts_with(&[0, 60, 0, 60])).count();
        if !node.socket(client.conn).sending {
            break;
        }
        node.send_done(client.conn);
    }
    assert_eq!((tags, bodies), (120, 120 << 20));
}

#[test]
fn a_client_that_does_not_read_and_does_not_acknowledge_is_hung_up_on() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let client = hungry(&mut node, client, (AMQP_SEND_BYTES_HUNG_UP >> 20) + 5, true);
    assert!(node.socket(client.conn).closed);
    assert_eq!(node.broker.amqp_kept(), Kept::default());
}

#[test]
fn messages_that_wait_for_room_in_a_channels_prefetch_are_counted() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let qos = BasicQos { prefetch_count: 1, global: true, ..BasicQos::default() };
    client.ask(&mut node, 1, qos);
    let body = vec![7; 1 << 20];
    for queue in 0..3 {
        let name = format!("q{queue}");
        client.queue(&mut node, &name, &TableWriter::default());
        client.raw(&mut node, &Client::message(1, to(&name), &[0, 0], &body));
        let consume = BasicConsume { queue: Short(name.as_bytes()), ..BasicConsume::default() };
        client.ask(&mut node, 1, consume);
    }
    let sending = node.broker.amqp_kept().sending;
    assert!((2 << 20..3 << 20).contains(&sending), "{sending}");
    for delivery_tag in 1..=3 {
        client.ask(&mut node, 1, BasicAck { delivery_tag, multiple: false });
    }
    assert_eq!(node.broker.amqp_kept(), Kept { channels: 1, consumers: 3, ..Kept::default() });
}

#[test]
fn messages_without_a_way_behind_one_that_waits_are_bounded() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default());
    client.ask(&mut node, 1, ConfirmSelect::default());
    node.hold = true;
    client.raw(&mut node, &Client::message(1, to("q"), &[0, 0], b"m"));
    let many: Vec<u8> = (0..2_000).flat_map(|_| Client::message(1, to("nowhere"), &[0, 0], b"")).collect();
    for round in 0.. {
        if node.socket(client.conn).read_off {
            break;
        }
        client.raw(&mut node, &many);
        assert!(round <= AMQP_UNCONFIRMED_MAX / 2_000 + 1, "memory grows without end");
    }
    node.release_all();
    assert!(!node.socket(client.conn).read_off);
    assert!(client.shown(&mut node).contains("multiple: true"));
    assert_eq!(node.broker.amqp_kept().unconfirmed, 0);
}

#[test]
fn a_message_has_so_many_keys_at_most() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default());
    for (count, is_refused) in [(AMQP_KEYS_PER_MESSAGE_MAX - 1, false), (AMQP_KEYS_PER_MESSAGE_MAX, true)] {
        let keys = TableWriter::array((0..count).map(|_| Value::String(b"q")));
        let headers = TableWriter::default().with("BCC", keys.value());
        let properties = Properties { headers: Some(headers.table()), ..Properties::default() };
        client.publish_with(&mut node, 1, "", "q", &properties, b"m");
        let shown = client.shown(&mut node);
        assert_eq!(
            shown.contains("PRECONDITION_FAILED - invalid message: it has more than"),
            is_refused,
            "{shown}"
        );
    }
}

#[test]
fn a_client_whose_messages_take_long_to_route_leaves_others_their_turn() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let (queues, messages) = (100, 400);
    for queue in 0..queues {
        let name = format!("q{queue}");
        client.queue(&mut node, &name, &TableWriter::default());
        client.bind(&mut node, &name, "amq.fanout", "", Table::EMPTY);
    }
    let publish = BasicPublish { exchange: Short(b"amq.fanout"), ..BasicPublish::default() };
    let many: Vec<u8> = (0..messages).flat_map(|_| Client::message(1, publish, &[0, 0], b"m")).collect();
    node.engine.log.clear();
    let count = |node: &Node| {
        let published: usize = node.engine.log.iter().map(|asked| asked.matches("Publish {").count()).sum();
        // The queues are on two shards.
        published / 2
    };
    client.raw(&mut node, &many);
    let first = count(&node);
    assert!(first > 0 && first <= AMQP_WORK_PER_STEP / queues + 1, "{first}");
    node.advance(Nanos(1));
    assert_eq!(count(&node), messages);
    assert_eq!(client.shown(&mut node), "");
}

#[test]
fn a_policy_for_very_many_queues_takes_many_turns() {
    const QUEUES: usize = 3_000;
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    for number in 0..QUEUES {
        client.queue(&mut node, &format!("q{number}"), &TableWriter::default());
    }
    let definition = TableWriter::default().with("max-length", Value::I64(3));
    let value = PolicyValue {
        pattern: b"^q".to_vec(),
        apply_to: ApplyTo::Queues,
        priority: 0,
        definition: definition.table().raw().to_vec(),
    };
    node.engine.log.clear();
    set(&mut node, key(POLICY, &[b"/", b"p"]), value.write());
    let configured = |node: &Node| {
        let edits = node.engine.log.iter().map(|request| request.matches("ConfigureQueue").count());
        edits.collect::<Vec<_>>()
    };
    let at_once = configured(&node).iter().sum::<usize>();
    assert!(at_once <= AMQP_POLICY_LOOKS_PER_TURN, "{at_once} in one turn");
    assert!(at_once < QUEUES);
    node.advance(Nanos::from_millis(1));
    let all = configured(&node);
    assert_eq!(all.iter().sum::<usize>(), QUEUES);
    assert!(all.iter().all(|edits| *edits <= AMQP_POLICY_LOOKS_PER_TURN));
}
