//! Exchanges and bindings, and where messages go by them.

use millstream::amqp::codec::{
    BasicGet, ExchangeBind, ExchangeDeclare, ExchangeDelete, ExchangeUnbind, Properties, QueueDelete,
    QueueUnbind, Short, Table, TableWriter, Value,
};

use crate::client::Client;
use crate::node::Node;

fn exchange<'a>(name: &'a str, kind: &'a str) -> ExchangeDeclare<'a> {
    ExchangeDeclare {
        exchange: Short(name.as_bytes()),
        kind: Short(kind.as_bytes()),
        durable: true,
        ..ExchangeDeclare::default()
    }
}

fn declare(client: &Client, node: &mut Node, method: ExchangeDeclare<'_>) {
    assert_eq!(client.ask(node, 1, method), "1 ExchangeDeclareOk");
}

/// What a queue has, taken out of it.
fn drained(client: &Client, node: &mut Node, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let get = BasicGet { queue: Short(queue.as_bytes()), no_ack: true, ..BasicGet::default() };
        let shown = client.ask(node, 1, get);
        match shown.lines().last().unwrap().strip_prefix("1 body ") {
            Some(body) => bodies.push(body.trim_matches('"').to_owned()),
            None => return bodies,
        }
    }
}

/// Publishes, and says which of these queues got it.
fn went(
    client: &Client,
    node: &mut Node,
    from: &str,
    key: &str,
    queues: &[&'static str],
) -> Vec<&'static str> {
    client.publish(node, 1, from, key, "m");
    client.came(node);
    queues.iter().copied().filter(|queue| !drained(client, node, queue).is_empty()).collect()
}

const QUEUES: &[&str] = &["a", "b", "c"];

fn with_queues(node: &mut Node) -> Client {
    let client = Client::with_channel(node);
    for queue in QUEUES {
        client.queue(node, queue, &TableWriter::default());
    }
    client
}

#[test]
fn direct_fanout_and_topic_choose_by_the_key() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    let none = Table::default();
    client.bind(&mut node, "a", "amq.direct", "k", none);
    client.bind(&mut node, "b", "amq.direct", "k", none);
    client.bind(&mut node, "b", "amq.direct", "k", none);
    client.bind(&mut node, "c", "amq.fanout", "x", none);
    client.bind(&mut node, "a", "amq.topic", "one.*", none);
    client.bind(&mut node, "b", "amq.topic", "#.two", none);
    assert_eq!(went(&client, &mut node, "amq.direct", "k", QUEUES), ["a", "b"]);
    assert_eq!(went(&client, &mut node, "amq.direct", "x", QUEUES), [""; 0]);
    assert_eq!(went(&client, &mut node, "amq.fanout", "any", QUEUES), ["c"]);
    assert_eq!(went(&client, &mut node, "amq.topic", "one.two", QUEUES), ["a", "b"]);
    assert_eq!(went(&client, &mut node, "amq.topic", "one.one", QUEUES), ["a"]);
    assert_eq!(
        went(&client, &mut node, "", "b", QUEUES),
        ["b"],
        "every queue is bound to the default exchange"
    );
    let unbind = QueueUnbind {
        queue: Short(b"b"),
        exchange: Short(b"amq.direct"),
        routing_key: Short(b"k"),
        ..QueueUnbind::default()
    };
    for _ in 0..2 {
        assert_eq!(client.ask(&mut node, 1, unbind), "1 QueueUnbindOk");
        assert_eq!(went(&client, &mut node, "amq.direct", "k", QUEUES), ["a"]);
    }
}

#[test]
fn headers_choose_by_headers() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    let all = TableWriter::default().with("x-match", Value::String(b"all")).with("k", Value::I32(1));
    client.bind(&mut node, "a", "amq.match", "", all.table());
    for (number, queues) in [(1, vec!["a"]), (2, vec![])] {
        let headers = TableWriter::default().with("k", Value::I64(number));
        let properties = Properties { headers: Some(headers.table()), ..Properties::default() };
        client.publish_with(&mut node, 1, "amq.match", "", &properties, b"m");
        client.came(&mut node);
        let got: Vec<&str> =
            QUEUES.iter().copied().filter(|queue| !drained(&client, &mut node, queue).is_empty()).collect();
        assert_eq!(got, queues);
    }
}

#[test]
fn exchanges_lead_to_exchanges_without_end_and_each_queue_gets_one_copy() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    for name in ["x", "y"] {
        declare(&client, &mut node, exchange(name, "fanout"));
        client.bind(&mut node, "a", name, "", Table::default());
    }
    for (source, destination) in [("x", "y"), ("y", "x")] {
        let bind = ExchangeBind {
            source: Short(source.as_bytes()),
            destination: Short(destination.as_bytes()),
            ..ExchangeBind::default()
        };
        assert_eq!(client.ask(&mut node, 1, bind), "1 ExchangeBindOk");
    }
    client.bind(&mut node, "b", "y", "", Table::default());
    client.publish(&mut node, 1, "x", "", "m");
    assert_eq!(drained(&client, &mut node, "a"), ["m"]);
    assert_eq!(drained(&client, &mut node, "b"), ["m"]);
    let unbind =
        ExchangeUnbind { source: Short(b"x"), destination: Short(b"y"), ..ExchangeUnbind::default() };
    assert_eq!(client.ask(&mut node, 1, unbind), "1 ExchangeUnbindOk");
    assert_eq!(went(&client, &mut node, "x", "", QUEUES), ["a"]);
}

#[test]
fn what_has_no_way_goes_to_the_alternate_exchange() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    declare(&client, &mut node, exchange("last", "fanout"));
    let arguments = TableWriter::default().with("alternate-exchange", Value::String(b"last"));
    declare(&client, &mut node, ExchangeDeclare { arguments: arguments.table(), ..exchange("x", "direct") });
    client.bind(&mut node, "a", "x", "k", Table::default());
    client.publish(&mut node, 1, "x", "other", "m");
    assert!(client.shown(&mut node).starts_with("1 BasicReturn"), "the other one has no way either");
    client.bind(&mut node, "b", "last", "", Table::default());
    assert_eq!(went(&client, &mut node, "x", "other", QUEUES), ["b"]);
    assert_eq!(went(&client, &mut node, "x", "k", QUEUES), ["a"]);
    let default = TableWriter::default().with("alternate-exchange", Value::String(b""));
    declare(&client, &mut node, ExchangeDeclare { arguments: default.table(), ..exchange("y", "direct") });
    client.publish(&mut node, 1, "y", "a", "m");
    assert!(client.shown(&mut node).starts_with("1 BasicReturn"), "the default one is nobody's alternate");
}

#[test]
fn what_has_no_way_at_all_comes_back() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    let properties = Properties { correlation_id: Some(b"7"), ..Properties::default() };
    client.publish_with(&mut node, 1, "amq.direct", "nowhere", &properties, b"m");
    assert_eq!(
        client.shown(&mut node),
        "1 BasicReturn { reply_code: 312, reply_text: \"NO_ROUTE\", exchange: \"amq.direct\", routing_key: \"nowhere\" }\n\
         1 header 1 bytes correlation_id=7\n1 body \"m\""
    );
}

#[test]
fn copies_go_by_the_keys_in_headers_and_hidden_ones_are_not_seen() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    let (cc, bcc) = (TableWriter::array([Value::String(b"b")]), TableWriter::array([Value::String(b"c")]));
    let headers = TableWriter::default().with("CC", cc.value()).with("BCC", bcc.value());
    let properties = Properties { headers: Some(headers.table()), ..Properties::default() };
    client.publish_with(&mut node, 1, "", "a", &properties, b"m");
    for queue in QUEUES {
        let get = BasicGet { queue: Short(queue.as_bytes()), no_ack: true, ..BasicGet::default() };
        let shown = client.ask(&mut node, 1, get);
        assert!(shown.contains("header 1 bytes {CC: [b]}"), "{shown}");
    }
    let headers = TableWriter::default().with("CC", Value::String(b"b"));
    let properties = Properties { headers: Some(headers.table()), ..Properties::default() };
    client.publish_with(&mut node, 1, "", "a", &properties, b"m");
    assert!(client.shown(&mut node).contains("406"), "not an array");
}

#[test]
fn an_exchange_goes_with_its_last_binding_if_it_was_made_so() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    declare(&client, &mut node, ExchangeDeclare { auto_delete: true, ..exchange("x", "fanout") });
    client.bind(&mut node, "a", "x", "", Table::default());
    client.bind(&mut node, "b", "x", "", Table::default());
    let before = node.engine.entry_count();
    client.ask(&mut node, 1, QueueDelete { queue: Short(b"a"), ..QueueDelete::default() });
    let passive = ExchangeDeclare { passive: true, ..exchange("x", "") };
    assert_eq!(client.ask(&mut node, 1, passive), "1 ExchangeDeclareOk");
    client.ask(&mut node, 1, QueueDelete { queue: Short(b"b"), ..QueueDelete::default() });
    assert!(client.ask(&mut node, 1, passive).contains("404"));
    assert_eq!(node.engine.entry_count(), before - 5, "two queues, two bindings and the exchange");
}

#[test]
fn a_binding_does_not_outlive_its_queue_under_the_same_name() {
    let mut node = Node::new();
    let client = with_queues(&mut node);
    client.bind(&mut node, "a", "amq.fanout", "", Table::default());
    client.ask(&mut node, 1, QueueDelete { queue: Short(b"a"), ..QueueDelete::default() });
    client.queue(&mut node, "a", &TableWriter::default());
    assert_eq!(went(&client, &mut node, "amq.fanout", "", QUEUES), [""; 0]);
}

#[test]
fn what_does_not_fit_ends_the_channel_with_rabbitmqs_words() {
    let mut node = Node::new();
    let delete =
        |name: &'static str| ExchangeDelete { exchange: Short(name.as_bytes()), ..ExchangeDelete::default() };
    let ask = |node: &mut Node, method: millstream::amqp::codec::Method<'_>| {
        let client = Client::with_channel(node);
        client.ask(node, 1, ExchangeDeclare { auto_delete: true, ..exchange("there", "direct") });
        client.ask(node, 1, method)
    };
    for (method, code, text) in [
        (exchange("x", "zz").into(), 406, "PRECONDITION_FAILED - unknown exchange type 'zz'"),
        (
            exchange("amq.x", "direct").into(),
            403,
            "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
        ),
        (
            exchange("", "direct").into(),
            403,
            "ACCESS_REFUSED - operation not permitted on the default exchange",
        ),
        (
            ExchangeDeclare { passive: true, ..exchange("none", "direct") }.into(),
            404,
            "NOT_FOUND - no exchange 'none' in vhost '/'",
        ),
        (
            exchange("there", "fanout").into(),
            406,
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'there' in vhost '/': received 'fanout' but current is \
             'direct'",
        ),
        (
            delete("amq.direct").into(),
            403,
            "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        ),
        (
            ExchangeBind { source: Short(b"none"), destination: Short(b"there"), ..ExchangeBind::default() }
                .into(),
            404,
            "NOT_FOUND - no exchange 'none' in vhost '/'",
        ),
    ] {
        let shown = ask(&mut node, method);
        let start = format!("1 ChannelClose {{ reply_code: {code}, reply_text: {text:?}");
        assert!(shown.starts_with(&start), "{shown}\n{start}");
    }
    assert_eq!(ask(&mut node, delete("none").into()), "1 ExchangeDeleteOk");
}
