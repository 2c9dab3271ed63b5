//! Connections that die in the middle of something: nothing of theirs is left behind, and nothing of others' goes with them.

use millstream::amqp::codec::{
    BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicQos, ChannelClose, ConfirmSelect,
    ConnectionClose, ExchangeDeclare, Properties, QueueBind, QueueDeclare, QueueDelete, QueuePurge, Short,
    TableWriter, TxCommit, TxSelect, Value,
};
use millstream::amqp::kept::Kept;
use millstream::limits::{AMQP_HANDSHAKE_MS, AMQP_SEND_BYTES_WAITING_MAX, AMQP_TICK_MS};
use millstream_engine::reactor::app::AppEvent;
use millstream_engine::time::Nanos;

use crate::client::Client;
use crate::node::Node;

fn auto() -> QueueDeclare<'static> {
    QueueDeclare { queue: Short(b"auto"), auto_delete: true, ..QueueDeclare::default() }
}

fn own() -> QueueDeclare<'static> {
    QueueDeclare { queue: Short(b"own"), exclusive: true, ..QueueDeclare::default() }
}

fn consume(queue: &str) -> BasicConsume<'_> {
    BasicConsume {
        queue: Short(queue.as_bytes()),
        consumer_tag: Short(queue.as_bytes()),
        ..BasicConsume::default()
    }
}

const GET: BasicGet<'static> = BasicGet { ticket: 0, queue: Short(b"q"), no_ack: false };
const CANCEL: BasicCancel<'static> = BasicCancel { consumer_tag: Short(b"auto"), no_wait: false };

type Deed = fn(&mut Node, &Client);

/// What a client is in the middle of: what it has done before, and what it does.
const DEEDS: &[(&str, Deed, Deed)] = &[
    ("declaring an exclusive queue", |_, _| {}, |node, client| client.method(node, 1, own())),
    (
        "declaring a second exclusive queue",
        |node, client| drop(client.ask(node, 1, own())),
        |node, client| client.method(node, 1, QueueDeclare { queue: Short(b"own2"), ..own() }),
    ),
    (
        "declaring an exclusive queue that is there",
        |node, client| drop(client.ask(node, 1, own())),
        |node, client| client.method(node, 1, own()),
    ),
    (
        "consuming from a queue that goes with its consumers",
        |node, client| drop(client.ask(node, 1, auto())),
        |node, client| client.method(node, 1, consume("auto")),
    ),
    (
        "cancelling the last consumer of such a queue",
        |node, client| {
            client.ask(node, 1, auto());
            client.ask(node, 1, consume("auto"));
        },
        |node, client| client.method(node, 1, CANCEL),
    ),
    (
        "cancelling it while it keeps a message",
        |node, client| {
            client.ask(node, 1, auto());
            client.ask(node, 1, consume("auto"));
            client.publish(node, 1, "", "auto", "x");
        },
        |node, client| client.method(node, 1, CANCEL),
    ),
    (
        "consuming from its own queue",
        |node, client| drop(client.ask(node, 1, own())),
        |node, client| client.method(node, 1, consume("own")),
    ),
    ("getting", |_, _| {}, |node, client| client.method(node, 1, GET)),
    (
        "getting again",
        |node, client| drop(client.ask(node, 1, GET)),
        |node, client| client.method(node, 1, GET),
    ),
    ("consuming", |_, _| {}, |node, client| client.method(node, 1, consume("q"))),
    (
        "consuming with a channel's prefetch",
        |node, client| {
            client.ask(node, 1, BasicQos { prefetch_count: 1, global: true, ..BasicQos::default() });
        },
        |node, client| client.method(node, 1, consume("q")),
    ),
    (
        "giving back",
        |node, client| drop(client.ask(node, 1, consume("q"))),
        |node, client| client.method(node, 1, BasicNack { delivery_tag: 0, multiple: true, requeue: true }),
    ),
    (
        "closing a channel",
        |node, client| drop(client.ask(node, 1, consume("q"))),
        |node, client| client.method(node, 1, ChannelClose::default()),
    ),
    (
        "closing the connection",
        |node, client| {
            client.ask(node, 1, own());
            client.ask(node, 1, consume("own"));
        },
        |node, client| client.method(node, 0, ConnectionClose::default()),
    ),
    (
        "binding its own queue",
        |node, client| {
            client.ask(node, 1, own());
            let fanout = ExchangeDeclare {
                exchange: Short(b"short"),
                kind: Short(b"fanout"),
                auto_delete: true,
                ..ExchangeDeclare::default()
            };
            client.ask(node, 1, fanout);
        },
        |node, client| {
            let bind = QueueBind { queue: Short(b"own"), exchange: Short(b"short"), ..QueueBind::default() };
            client.method(node, 1, bind);
        },
    ),
    (
        "deleting its own queue",
        |node, client| drop(client.ask(node, 1, own())),
        |node, client| client.method(node, 1, QueueDelete { queue: Short(b"own"), ..QueueDelete::default() }),
    ),
    (
        "purging its own queue",
        |node, client| drop(client.ask(node, 1, own())),
        |node, client| client.method(node, 1, QueuePurge { queue: Short(b"own"), ..QueuePurge::default() }),
    ),
    (
        "publishing to its own queue",
        |node, client| {
            client.ask(node, 1, own());
            client.ask(node, 1, ConfirmSelect::default());
        },
        |node, client| client.publish(node, 1, "", "own", "x"),
    ),
    (
        "committing nothing of others",
        |node, client| {
            client.ask(node, 1, own());
            client.ask(node, 1, TxSelect {});
            client.publish(node, 1, "", "own", "x");
        },
        |node, client| client.method(node, 1, TxCommit {}),
    ),
];

#[test]
fn a_connection_may_die_at_any_point_of_anything() {
    for (what, before, deed) in DEEDS {
        for answered in 0..8 {
            let mut node = Node::new();
            let witness = Client::with_channel(&mut node);
            witness.queue(&mut node, "q", &TableWriter::default());
            for message in ["a", "b", "c"] {
                witness.publish(&mut node, 1, "", "q", message);
            }
            let entries = node.engine.entry_count();
            let client = Client::with_channel(&mut node);
            before(&mut node, &client);
            client.shown(&mut node);
            node.hold = true;
            deed(&mut node, &client);
            node.release(answered);
            if !node.socket(client.conn).closed {
                node.disconnect(client.conn);
            }
            node.release_all();
            node.advance(Nanos::from_millis(3 * AMQP_TICK_MS));
            let what = format!("{what}, {answered} answers");
            assert_eq!(node.engine.consumer_count(), 0, "{what}");
            // Nobody ever consumed from it if the consumer did not come to be.
            let left = node.engine.queue_count() - 1;
            assert_eq!(left, 0, "{what}: a queue is left");
            assert!(node.engine.entry_count() <= entries + 1, "{what}: an entry is left");
            assert_eq!(node.broker.amqp_kept(), Kept { channels: 1, ..Kept::default() }, "{what}");
            assert_eq!(node.broker.pending(), node.timers.len(), "{what}");
            let shown: Vec<String> = (0..4)
                .map(|_| witness.ask(&mut node, 1, BasicGet { no_ack: true, ..GET }))
                .map(|shown| shown.lines().last().unwrap_or_default().to_owned())
                .collect();
            let bodies =
                ["1 body \"a\"", "1 body \"b\"", "1 body \"c\"", "1 BasicGetEmpty { cluster_id: \"\" }"];
            assert_eq!(shown, bodies, "{what}");
        }
    }
}

#[test]
fn a_queue_that_could_not_be_deleted_with_its_connection_is_deleted_later() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.ask(&mut node, 1, own());
    node.engine.refused_changes = 2;
    node.disconnect(client.conn);
    assert_eq!(node.engine.queue_count(), 1);
    node.advance(Nanos::from_millis(3 * AMQP_TICK_MS));
    assert_eq!((node.engine.queue_count(), node.engine.refused_changes), (0, 0));
    node.advance(Nanos::from_millis(20_000));
    assert_eq!(node.broker.pending(), 1, "the idle check");
}

#[test]
fn a_queue_goes_with_a_consumer_that_runs_out_of_time_as_its_connection_dies() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let timeout = TableWriter::default().with("x-consumer-timeout", Value::I32(1000));
    client.ask(&mut node, 1, QueueDeclare { arguments: timeout.table(), ..auto() });
    client.ask(&mut node, 1, consume("auto"));
    client.publish(&mut node, 1, "", "auto", "m");
    node.hold = true;
    node.disconnect(client.conn);
    // What it kept was to go back, but that is still on its way.
    node.advance(Nanos::from_millis(3_000));
    assert_eq!(node.engine.consumer_count(), 0, "it has run out of time");
    node.release_all();
    assert_eq!(node.engine.queue_count(), 0);
}

#[test]
fn an_old_connection_is_answered_when_it_closes() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.ask(&mut node, 1, own());
    node.advance(Nanos::from_millis(AMQP_HANDSHAKE_MS + 1_000));
    node.hold_sends = true;
    assert_eq!(client.ask(&mut node, 0, ConnectionClose::default()), "0 ConnectionCloseOk");
    node.advance(Nanos::from_millis(100));
    assert!(!node.socket(client.conn).closed, "the answer has not been taken");
    node.send_done(client.conn);
    assert!(node.socket(client.conn).closed);
    assert_eq!(node.engine.queue_count(), 0);
}

#[test]
fn a_queue_that_bears_the_name_of_one_that_went_before_stays() {
    let mut node = Node::new();
    let (client, other) = (Client::with_channel(&mut node), Client::with_channel(&mut node));
    client.ask(&mut node, 1, own());
    client.ask(&mut node, 1, QueueDelete { queue: Short(b"own"), ..QueueDelete::default() });
    other.queue(&mut node, "own", &TableWriter::default());
    client.ask(&mut node, 0, ConnectionClose::default());
    assert_eq!(node.engine.queue_count(), 1);
}

#[test]
fn a_stuck_client_is_hung_up_on() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.ask(&mut node, 1, own());
    node.step(AppEvent::Stuck(client.conn));
    assert!(node.socket(client.conn).closed);
    assert_eq!((node.engine.queue_count(), node.broker.connections()), (0, 0));
}

#[test]
fn answers_to_a_client_that_does_not_read_are_dropped() {
    let mut node = Node::new();
    let (asker, server) = (Client::with_channel(&mut node), Client::with_channel(&mut node));
    server.queue(&mut node, "q", &TableWriter::default());
    let reply_to = BasicConsume { no_ack: true, ..consume("amq.rabbitmq.reply-to") };
    asker.ask(&mut node, 1, reply_to);
    let properties = Properties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..Properties::default() };
    asker.publish_with(&mut node, 1, "", "q", &properties, b"question");
    let shown = server.ask(&mut node, 1, BasicGet { no_ack: true, ..GET });
    let (_, rest) = shown.split_once("reply_to=").unwrap();
    let address = rest.lines().next().unwrap().to_owned();
    node.hold_sends = true;
    // One send is under way and never done: everything else waits.
    let body = "x".repeat(100_000);
    for _ in 0..100 {
        server.publish(&mut node, 1, "", &address, &body);
    }
    let sending = node.broker.amqp_kept().sending;
    assert!(sending <= AMQP_SEND_BYTES_WAITING_MAX + 2 * 100_000, "{sending} bytes wait");
    loop {
        let came = asker.came(&mut node);
        if !node.socket(asker.conn).sending {
            break;
        }
        assert!(came.iter().all(|came| came.channel == 1));
        node.send_done(asker.conn);
    }
    node.hold_sends = false;
    server.publish(&mut node, 1, "", &address, "last");
    assert!(asker.shown(&mut node).ends_with("body \"last\""));
}

#[test]
fn what_was_got_takes_nothing_from_a_channels_prefetch() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.queue(&mut node, "q", &TableWriter::default());
    for message in ["a", "b", "c", "d"] {
        client.publish(&mut node, 1, "", "q", message);
    }
    client.queue(&mut node, "r", &TableWriter::default());
    client.publish(&mut node, 1, "", "r", "x");
    client.ask(&mut node, 1, BasicQos { prefetch_count: 1, global: true, ..BasicQos::default() });
    assert!(client.ask(&mut node, 1, GET).ends_with("body \"a\""));
    assert!(client.ask(&mut node, 1, consume("q")).ends_with("body \"b\""));
    client.ask(&mut node, 1, consume("r"));
    // The message that was got is still kept: the others come one by one all the same.
    let mut came = Vec::new();
    for delivery_tag in 2..=4 {
        let shown = client.ask(&mut node, 1, BasicAck { delivery_tag, multiple: false });
        came.push(shown.lines().last().unwrap_or_default().to_owned());
    }
    came.sort();
    assert_eq!(came, ["1 body \"c\"", "1 body \"d\"", "1 body \"x\""]);
    // The same within a transaction, which settles later.
    client.ask(&mut node, 1, TxSelect {});
    client.ask(&mut node, 1, BasicAck { delivery_tag: 1, multiple: false });
    client.ask(&mut node, 1, BasicAck { delivery_tag: 0, multiple: true });
    assert_eq!(client.ask(&mut node, 1, TxCommit {}), "1 TxCommitOk");
}

#[test]
fn a_message_for_a_queue_that_is_being_deleted_is_refused_to_whoever_waits_for_word_only() {
    let mut node = Node::new();
    let (client, plain) = (Client::with_channel(&mut node), Client::with_channel(&mut node));
    client.queue(&mut node, "q", &TableWriter::default());
    let confirming = Client::with_channel(&mut node);
    confirming.ask(&mut node, 1, ConfirmSelect::default());
    node.hold = true;
    client.method(&mut node, 1, QueueDelete { queue: Short(b"q"), ..QueueDelete::default() });
    node.release(1);
    // It is closed, and may stay all the same.
    confirming.publish(&mut node, 1, "", "q", "m");
    plain.publish(&mut node, 1, "", "q", "m");
    let deletion = node.held.pop_front().unwrap();
    node.release(2);
    let shown = confirming.shown(&mut node);
    assert_eq!(shown, "1 BasicNack { delivery_tag: 1, multiple: false, requeue: true }");
    assert_eq!(plain.shown(&mut node), "");
    node.held.push_front(deletion);
    node.release_all();
    assert_eq!(client.shown(&mut node), "1 QueueDeleteOk { message_count: 0 }");
}
