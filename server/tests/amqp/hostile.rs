//! Bytes that are anything: whatever comes, only its own connection ends, and nothing is left behind.

use millstream::amqp::codec::{FRAME_METHOD, Method, PROTOCOL_HEADER, Reader, Writer};
use millstream_engine::io::random::Random;

use crate::client::Client;
use crate::node::Node;

/// A method with fields that are small numbers mostly, so that many of them mean something.
fn method(random: &mut Random) -> Vec<u8> {
    let all = Method::ALL;
    let (class, id) = all[random.below(all.len() as u64) as usize];
    let fields: Vec<u8> = (0..random.below(40)).map(|_| (random.next() & random.next() & 3) as u8).collect();
    let mut bytes = Vec::new();
    let channel = random.below(3) as u16;
    Writer::new(&mut bytes).frame(FRAME_METHOD, channel, |writer| {
        writer.u16(class);
        writer.u16(id);
        // As many fields as there are, if they can be read.
        let mut reader = Reader::new(&fields);
        match Method::read(class, id, &mut reader) {
            Ok(Some(method)) => {
                let mut whole = Vec::new();
                method.write(&mut Writer::new(&mut whole));
                writer.bytes(&whole[4..]);
            }
            _ => writer.bytes(&fields),
        }
    });
    bytes
}

#[test]
fn nothing_that_comes_disturbs_anybody_else() {
    let mut random = Random::new(7);
    let mut node = Node::new();
    let witness = Client::with_channel(&mut node);
    witness.queue(&mut node, "w", &millstream::amqp::codec::TableWriter::default());
    for round in 0..300 {
        let client = if round % 5 == 0 {
            let client = Client { conn: node.connect() };
            client.raw(&mut node, &PROTOCOL_HEADER);
            client
        } else {
            Client::with_channel(&mut node)
        };
        for _ in 0..20 {
            let mut bytes = method(&mut random);
            if random.below(20) == 0 {
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place] ^= random.next() as u8;
            }
            for piece in bytes.chunks(1 + random.below(bytes.len() as u64) as usize) {
                if !node.socket(client.conn).closed {
                    client.raw(&mut node, piece);
                }
            }
        }
        node.sockets.get_mut(&client.conn).unwrap().sent.clear();
        if !node.socket(client.conn).closed {
            node.disconnect(client.conn);
        }
    }
    witness.publish(&mut node, 1, "", "w", "m");
    assert_eq!(witness.shown(&mut node), "");
    assert_eq!(node.broker.connections(), 1);
    assert_eq!(node.engine.consumer_count(), 0);
    assert_eq!(node.broker.partial_bytes(), 0);
}
