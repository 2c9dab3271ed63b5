//! What the generator says and understands, against a codec that is not ours.

use super::Broker;

#[test]
fn an_address_is_read_as_perftest_reads_it() {
    let broker = Broker::of("amqp://me:secret@127.0.0.1:1234/%2fx").unwrap();
    assert_eq!((broker.address.port(), broker.user.as_str(), broker.password.as_str()), (1234, "me", "secret"));
    assert_eq!(broker.virtual_host, "/x");
    let broker = Broker::of("amqp://127.0.0.1").unwrap();
    assert_eq!((broker.address.port(), broker.user.as_str(), broker.virtual_host.as_str()), (5672, "guest", "/"));
    assert!(Broker::of("http://127.0.0.1").is_err());
}
