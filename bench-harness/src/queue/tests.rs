//! What the generator says and understands, against a codec that is not ours.

use std::net::{Ipv4Addr, TcpListener};

use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, queue};

use super::Broker;
use super::codec::{Frame, Writer, frame_len};

#[test]
fn an_address_is_read_as_perftest_reads_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = Broker::of(&format!("amqp://me:secret@127.0.0.1:{port}/%2fx")).unwrap();
    assert_eq!(
        (broker.address.port(), broker.user.as_str(), broker.password.as_str()),
        (port, "me", "secret")
    );
    assert_eq!(broker.virtual_host, "/x");
    let broker = Broker::of(&format!("amqp://127.0.0.1:{port}")).unwrap();
    assert_eq!((broker.user.as_str(), broker.virtual_host.as_str()), ("guest", "/"));
    assert!(Broker::of("http://127.0.0.1").is_err());
    drop(listener);
    let why = Broker::of(&format!("amqp://127.0.0.1:{port}")).unwrap_err().to_string();
    assert!(why.contains(&port.to_string()), "{why}");
}

#[test]
fn clients_share_queues_or_queues_their_clients() {
    let queues: Vec<String> = (0..5).map(|number| number.to_string()).collect();
    let of = |number, clients| super::share(&queues, number, clients).concat();
    assert_eq!((of(0, 2), of(1, 2)), ("024".to_owned(), "13".to_owned()));
    assert_eq!((of(0, 1), of(4, 5)), ("01234".to_owned(), "4".to_owned()));
    assert_eq!((of(0, 7), of(6, 7)), ("0".to_owned(), "1".to_owned()));
}

/// What was written, as the other codec reads it, whole.
fn read(what: impl FnOnce(&mut Writer)) -> Vec<AMQPFrame> {
    let mut writer = Writer::default();
    what(&mut writer);
    let mut rest = &writer.0[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (after, frame) = parse_frame(rest).unwrap();
        assert_eq!(frame_len(rest), Some(rest.len() - after.len()));
        frames.push(frame);
        rest = after;
    }
    frames
}

/// The only method that was written.
fn method(what: impl FnOnce(&mut Writer)) -> AMQPClass {
    match read(what).pop() {
        Some(AMQPFrame::Method(_, method)) => method,
        other => panic!("no method: {other:?}"),
    }
}

/// A method as the other codec writes it.
fn written(method: AMQPClass) -> Vec<u8> {
    gen_frame(&AMQPFrame::Method(1, method))(Vec::new().into()).unwrap().into_inner().0
}

#[test]
fn requests_are_what_the_protocol_says() {
    let AMQPClass::Connection(connection::AMQPMethod::StartOk(start)) = method(|w| w.start_ok("u", "p"))
    else {
        panic!("no start-ok");
    };
    assert_eq!((start.mechanism.as_str(), start.response.as_bytes()), ("PLAIN", &b"\0u\0p"[..]));
    let frames = read(|writer| writer.tune_ok_and_open(7, 4096, "/v"));
    let [
        AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune))),
        AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Open(open))),
    ] = &frames[..]
    else {
        panic!("{frames:?}")
    };
    assert_eq!((tune.channel_max, tune.frame_max, tune.heartbeat), (7, 4096, 0));
    assert_eq!(open.virtual_host.as_str(), "/v");
    let arguments =
        [("x-queue-type".to_owned(), "quorum".to_owned()), ("x-max-length".to_owned(), "5".to_owned())];
    let AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) = method(|w| w.declare("q", true, &arguments))
    else {
        panic!("no declare");
    };
    assert!(declare.durable && !declare.exclusive && !declare.auto_delete && !declare.nowait);
    assert_eq!((declare.queue.as_str(), declare.arguments.inner().len()), ("q", 2));
    let AMQPClass::Basic(basic::AMQPMethod::Consume(consume)) = method(|w| w.consume("q", true)) else {
        panic!("no consume");
    };
    assert!(consume.no_ack && !consume.exclusive && !consume.no_local);
    let AMQPClass::Basic(basic::AMQPMethod::Qos(qos)) = method(|writer| writer.qos(300)) else {
        panic!("no qos")
    };
    assert_eq!((qos.prefetch_count, qos.global), (300, false));
    let AMQPClass::Basic(basic::AMQPMethod::Ack(ack)) = method(|w| w.ack(u64::MAX, true)) else {
        panic!("no ack")
    };
    assert_eq!((ack.delivery_tag, ack.multiple), (u64::MAX, true));
    assert!(matches!(method(Writer::channel_open), AMQPClass::Channel(_)));
    assert!(matches!(method(Writer::confirm_select), AMQPClass::Confirm(_)));
    assert!(matches!(method(Writer::close), AMQPClass::Connection(connection::AMQPMethod::Close(_))));
}

#[test]
fn a_message_is_a_method_a_header_and_frames_no_larger_than_agreed() {
    for size in [0, 1, 4088, 4089, 10_000] {
        let body: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
        let mut place = 0;
        let mut bytes = Vec::new();
        let frames = read(|writer| {
            place = writer.publish("q", true, &body, 4096);
            bytes = writer.0.clone();
        });
        let AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish))) = &frames[0] else {
            panic!("no publish");
        };
        assert_eq!((publish.exchange.as_str(), publish.routing_key.as_str()), ("", "q"));
        let AMQPFrame::Header(1, header) = &frames[1] else { panic!("no header") };
        assert_eq!((header.body_size, *header.properties.delivery_mode()), (u64::from(size), Some(2)));
        let mut whole: Vec<u8> = Vec::new();
        for frame in &frames[2..] {
            let AMQPFrame::Body(1, piece) = frame else { panic!("no body") };
            assert!(piece.len() <= 4088);
            whole.extend(piece);
        }
        assert_eq!(whole, body);
        assert!(bytes.get(place..).unwrap_or_default().starts_with(&body[..body.len().min(4088)]));
    }
}

#[test]
fn what_a_server_says_is_understood_and_what_is_cut_off_is_an_error() {
    let deliver = basic::Deliver {
        consumer_tag: "ctag".into(),
        delivery_tag: 99,
        redelivered: true,
        exchange: "x".into(),
        routing_key: "r".into(),
    };
    let close = channel::Close { reply_code: 406, reply_text: "no".into(), class_id: 1, method_id: 2 };
    let ack = basic::Ack { delivery_tag: 5, multiple: true };
    let tune = connection::Tune { channel_max: 1, frame_max: 2, heartbeat: 3 };
    for (method, frame) in [
        (AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)), Frame::Deliver { tag: 99 }),
        (AMQPClass::Channel(channel::AMQPMethod::Close(close)), Frame::Close { code: 406, text: "no" }),
        (AMQPClass::Basic(basic::AMQPMethod::Ack(ack)), Frame::Ack { tag: 5, multiple: true }),
        (
            AMQPClass::Connection(connection::AMQPMethod::Tune(tune)),
            Frame::Tune { channel_max: 1, frame_max: 2 },
        ),
        (AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})), Frame::Done),
    ] {
        let bytes = written(method);
        assert_eq!(Frame::parse(&bytes).unwrap(), frame);
        for len in 0..bytes.len() {
            assert!(Frame::parse(&bytes[..len]).is_err(), "{len} bytes of {frame:?}");
        }
    }
}
