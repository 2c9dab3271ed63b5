//! What is counted of channels and exchanges.

use millstream::amqp::codec::{
    BasicAck, BasicConsume, BasicGet, BasicNack, BasicQos, ConfirmSelect, ExchangeDeclare, ExchangeDelete,
    Short, Table, TableWriter,
};
use millstream::amqp::counts::Counts;
use millstream::management::call::{Call, ConnectionsWanted, Exchanges};
use millstream_engine::reactor::app::AppEvent;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::node::Node;

fn counts(node: &mut Node) -> Vec<Counts> {
    let (answer, mut told) = oneshot::channel();
    node.step(AppEvent::Called(Box::new(Call::Connections(ConnectionsWanted::default(), answer))));
    let reports = told.try_recv().unwrap().reports;
    reports.iter().flat_map(|report| report.channels.iter().map(|channel| channel.counts)).collect()
}

fn exchanges(node: &mut Node) -> Exchanges {
    let (answer, mut told) = oneshot::channel();
    node.step(AppEvent::Called(Box::new(Call::Exchanges(answer))));
    told.try_recv().unwrap()
}

#[test]
fn a_channel_counts_what_it_has_done() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    client.open_channel(&mut node, 2);
    client.queue(&mut node, "q", &TableWriter::default());
    client.ask(&mut node, 1, ConfirmSelect::default());
    for _ in 0..5 {
        client.publish(&mut node, 1, "", "q", "m");
    }
    client.publish(&mut node, 1, "", "nowhere", "m");
    client.ask(&mut node, 2, BasicGet { queue: Short(b"q"), no_ack: true, ..BasicGet::default() });
    client.ask(&mut node, 2, BasicGet { queue: Short(b"q"), ..BasicGet::default() });
    client.ask(&mut node, 2, BasicNack { delivery_tag: 2, multiple: false, requeue: true });
    client.ask(&mut node, 2, BasicQos { prefetch_count: 2, ..BasicQos::default() });
    client.ask(&mut node, 2, BasicConsume { queue: Short(b"q"), ..BasicConsume::default() });
    client.ask(&mut node, 2, BasicAck { delivery_tag: 4, multiple: true });
    client.ask(&mut node, 2, BasicAck { delivery_tag: 6, multiple: true });
    client.ask(&mut node, 2, BasicGet { queue: Short(b"q"), ..BasicGet::default() });
    let published = Counts { published: 6, confirmed: 6, returned: 1, ..Counts::default() };
    let consumed = Counts {
        delivered: 4,
        got: 1,
        got_no_ack: 1,
        got_empty: 1,
        redelivered: 1,
        acked: 4,
        ..Counts::default()
    };
    assert_eq!(counts(&mut node), [published, consumed]);
}

#[test]
fn an_exchange_counts_what_comes_in_and_how_often_that_goes_out_until_it_is_deleted() {
    let mut node = Node::new();
    let client = Client::with_channel(&mut node);
    let fanout =
        ExchangeDeclare { exchange: Short(b"x"), kind: Short(b"fanout"), ..ExchangeDeclare::default() };
    client.ask(&mut node, 1, fanout);
    for queue in ["a", "b", "c"] {
        client.queue(&mut node, queue, &TableWriter::default());
        client.bind(&mut node, queue, "x", "", Table::EMPTY);
    }
    for exchange in ["x", "x", "", "x", "amq.topic"] {
        client.publish(&mut node, 1, exchange, "a", "m");
    }
    let of = |name: &str, counts| ((b"/".to_vec(), name.as_bytes().to_vec()), counts);
    assert_eq!(exchanges(&mut node), [of("", (1, 1)), of("amq.topic", (1, 0)), of("x", (3, 9))]);
    client.ask(&mut node, 1, ExchangeDelete { exchange: Short(b"x"), ..ExchangeDelete::default() });
    assert_eq!(exchanges(&mut node), [of("", (1, 1)), of("amq.topic", (1, 0))]);
}
