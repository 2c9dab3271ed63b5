"""What is said to a broker. Each scenario is a function that is given a way to connect, and yields what came back, step by step."""

import time

from pika import spec
from pika.spec import Basic, Channel, Confirm, Connection, Exchange, Queue, Tx

from frames import start_ok

P = spec.BasicProperties


def channel(peer, number=1):
    assert peer.ask(number, Channel.Open())[-1].startswith(f"{number} Channel.OpenOk"), "no channel"
    return peer


def failing(connect, *methods):
    """Each method on a fresh connection."""
    for method in methods:
        peer = channel(connect())
        things = method if isinstance(method, list) else [method]
        yield peer.ask(1, *things)
        peer.end()


def handshake(connect):
    peer = connect(open_it=False)
    peer.raw(b"AMQP\x00\x00\x09\x01")
    yield peer.hear()
    yield peer.ask(0, start_ok("guest", "wrong"), quiet_s=4)
    for mechanism, response in [("NONE", ""), ("PLAIN", "nonsense"), ("AMQPLAIN", "nonsense")]:
        peer = connect(open_it=False)
        peer.raw(b"AMQP\x00\x00\x09\x01")
        peer.hear()
        yield peer.ask(0, start_ok("", "", mechanism, response), quiet_s=4)
    peer = connect(open_it=False)
    peer.raw(b"AMQP\x00\x00\x09\x01")
    peer.hear()
    login = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x05guest"
    peer.say(0, start_ok("", "", "AMQPLAIN", login))
    yield [line.split(" {")[0] for line in peer.hear()]
    for tune in [(2047, 4000, 0), (2047, 200_000, 0), (3000, 131072, 0), (0, 131072, 0), (2047, 0, 0)]:
        peer = connect(open_it=False)
        peer.raw(b"AMQP\x00\x00\x09\x01")
        peer.hear()
        peer.ask(0, start_ok("guest", "guest"))
        yield peer.ask(0, Connection.TuneOk(*tune), Connection.Open("/"))
    peer = connect(vhost="nowhere")
    yield peer.opened
    peer = connect(open_it=False)
    peer.raw(b"AMQP\x01\x01\x08\x00")
    yield peer.hear()
    peer = connect()
    yield peer.ask(0, Connection.UpdateSecret("x", "y"))
    yield peer.ask(0, Connection.Close(200, "bye", 0, 0))


def queues(connect):
    peer = channel(connect())
    yield peer.ask(1, Queue.Declare(queue="d.q"))
    yield peer.ask(1, Queue.Declare(queue="d.q"))
    yield peer.ask(1, Queue.Declare(queue="d.q", passive=True))
    yield peer.ask(1, Queue.Declare(queue=""))
    yield peer.ask(1, Queue.Declare(queue="d.\r\nx", auto_delete=True))
    yield peer.ask(1, Queue.Declare(queue="d.n", nowait=True))
    yield peer.ask(1, Queue.Purge(queue="d.q"))
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), "one", Basic.Publish(routing_key="d.q"), "two")
    yield peer.ask(1, Queue.Declare(queue="d.q", passive=True))
    yield peer.ask(1, Queue.Purge(queue="d.q"))
    for name in ["d.q", "d.q", "d.x", "d.n"]:
        yield peer.ask(1, Queue.Delete(queue=name))
    yield from failing(
        connect,
        Queue.Declare(queue="d.none", passive=True),
        Queue.Declare(queue="", passive=True),
        Queue.Declare(queue="amq.mine"),
        Queue.Declare(queue="d.w", arguments={"x-message-ttl": "soon"}),
        Queue.Declare(queue="d.w", arguments={"x-message-ttl": -1}),
        Queue.Declare(queue="d.w", arguments={"x-expires": 0}),
        Queue.Declare(queue="d.w", arguments={"x-max-priority": 256}),
        Queue.Declare(queue="d.w", arguments={"x-overflow": "burst"}),
        Queue.Declare(queue="d.w", arguments={"x-max-length": "many"}),
        Queue.Declare(queue="d.w", arguments={"x-dead-letter-routing-key": "k"}),
        Queue.Declare(queue="d.w", arguments={"x-dead-letter-exchange": 5}),
        Queue.Declare(queue="d.w", arguments={"x-single-active-consumer": 5}),
        Queue.Declare(queue="d.w", arguments={"x-queue-type": "none"}),
        Queue.Declare(queue="d.w", arguments={"x-queue-type": "quorum"}),
        Queue.Declare(queue="d.w", durable=True, exclusive=True, arguments={"x-queue-type": "quorum"}),
        Queue.Purge(queue="d.none"),
        Queue.Purge(queue=""),
        Basic.Get(queue="d.none"),
        Basic.Consume(queue="d.none"),
        Queue.Bind(queue="d.none", exchange="amq.direct"),
        Queue.Unbind(queue="d.none", exchange="amq.direct", routing_key="k"),
        Queue.Bind(queue="", exchange="amq.direct"),
    )
    peer = channel(connect())
    first = {"x-message-ttl": 1000, "x-max-length": 7}
    yield peer.ask(1, Queue.Declare(queue="d.e", durable=True, arguments=first))
    yield peer.ask(1, Queue.Declare(queue="d.e", durable=True, arguments={**first, "unknown": 1}))
    yield from failing(
        connect,
        Queue.Declare(queue="d.e", arguments=first),
        Queue.Declare(queue="d.e", durable=True, auto_delete=True, arguments=first),
        Queue.Declare(queue="d.e", durable=True, exclusive=True, arguments=first),
        Queue.Declare(queue="d.e", durable=True),
        Queue.Declare(queue="d.e", durable=True, arguments={"x-message-ttl": 2000, "x-max-length": 7}),
        Queue.Declare(queue="d.e", durable=True, arguments={**first, "x-expires": 1000}),
    )
    yield peer.ask(1, Queue.Delete(queue="d.e"))
    yield peer.ask(1, Queue.Declare(queue="d.own", exclusive=True))
    yield from failing(
        connect,
        Queue.Declare(queue="d.own"),
        Queue.Declare(queue="d.own", passive=True),
        Basic.Get(queue="d.own"),
        Basic.Consume(queue="d.own"),
        Queue.Purge(queue="d.own"),
        Queue.Delete(queue="d.own"),
        Queue.Bind(queue="d.own", exchange="amq.direct", routing_key="k"),
    )
    yield peer.ask(0, Connection.Close(200, "", 0, 0))
    yield from failing(connect, Queue.Declare(queue="d.own", passive=True))


def deleting(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.q"))
    peer.ask(1, Basic.Publish(routing_key="d.q"), "one")
    yield from failing(connect, Queue.Delete(queue="d.q", if_empty=True))
    yield peer.ask(1, Basic.Consume(queue="d.q", consumer_tag="t"))
    yield from failing(connect, Queue.Delete(queue="d.q", if_unused=True))
    other = channel(connect())
    yield other.ask(1, Queue.Delete(queue="d.q"))
    yield peer.hear()
    yield peer.ask(1, Queue.Declare(queue="d.auto", auto_delete=True))
    yield peer.ask(1, Basic.Consume(queue="d.auto", consumer_tag="u"))
    yield peer.ask(1, Basic.Cancel(consumer_tag="u"))
    time.sleep(0.3)
    yield peer.ask(1, Queue.Declare(queue="d.auto", passive=True))


def exchanges(connect):
    peer = channel(connect())
    for kind in ["direct", "fanout", "topic", "headers"]:
        yield peer.ask(1, Exchange.Declare(exchange=f"d.{kind}", type=kind))
        yield peer.ask(1, Exchange.Declare(exchange=f"d.{kind}", passive=True))
    yield from failing(
        connect,
        Exchange.Declare(exchange="d.none", passive=True),
        Exchange.Declare(exchange="d.x", type="direkt"),
        Exchange.Declare(exchange="amq.mine", type="direct"),
        Exchange.Declare(exchange="", type="direct"),
        Exchange.Declare(exchange="", passive=True),
        Exchange.Declare(exchange="d.direct", type="fanout"),
        Exchange.Declare(exchange="d.direct", type="direct", durable=True),
        Exchange.Declare(exchange="d.direct", type="direct", auto_delete=True),
        Exchange.Declare(exchange="d.direct", type="direct", internal=True),
        Exchange.Declare(exchange="d.direct", type="direct", arguments={"alternate-exchange": "d.fanout"}),
        Exchange.Declare(exchange="d.direct", type="direct", arguments={"nonsense": "x"}),
        Exchange.Delete(exchange="amq.direct"),
        Exchange.Delete(exchange=""),
        Exchange.Delete(exchange="d.none"),
        Exchange.Bind(source="d.none", destination="d.direct"),
        Exchange.Bind(source="d.direct", destination="d.none"),
        Exchange.Bind(source="", destination="d.direct"),
        Exchange.Bind(source="d.direct", destination=""),
        Exchange.Unbind(source="d.direct", destination="d.fanout", routing_key="k"),
        Queue.Bind(queue="d.none", exchange=""),
        [Queue.Declare(queue="d.q"), Queue.Bind(queue="d.q", exchange="d.headers", arguments={"x-match": "some"})],
        [Queue.Declare(queue="d.q"), Queue.Bind(queue="d.q", exchange="d.none")],
        [Queue.Declare(queue="d.q"), Queue.Unbind(queue="d.q", exchange="d.none")],
        [Queue.Declare(queue="d.q"), Queue.Bind(queue="d.q", exchange="")],
    )
    yield peer.ask(1, Queue.Bind(queue="d.q", exchange="d.direct", routing_key="k"))
    yield from failing(connect, Exchange.Delete(exchange="d.direct", if_unused=True))
    yield peer.ask(1, Exchange.Declare(exchange="d.auto", type="fanout", auto_delete=True))
    yield peer.ask(1, Queue.Bind(queue="d.q", exchange="d.auto"))
    yield peer.ask(1, Queue.Unbind(queue="d.q", exchange="d.auto"))
    yield from failing(connect, Exchange.Declare(exchange="d.auto", passive=True))
    yield peer.ask(1, Exchange.Declare(exchange="d.in", type="fanout", internal=True))
    yield from failing(
        connect,
        [Basic.Publish(exchange="d.in"), "x"],
        [Basic.Publish(exchange="d.none"), "x"],
    )
    for name in ["direct", "fanout", "topic", "headers", "in"]:
        yield peer.ask(1, Exchange.Delete(exchange=f"d.{name}"))
    yield peer.ask(1, Queue.Delete(queue="d.q"))


def drain(peer, names):
    """What the queues have."""
    lines = []
    for name in names:
        while True:
            came = peer.ask(1, Basic.Get(queue=name, no_ack=True), quiet_s=0.05, least=1)
            if "GetEmpty" in came[0]:
                break
            lines += [f"{name}: {line}" for line in came]
    return lines


def routing(connect):
    peer = channel(connect())
    names = ["d.a", "d.b", "d.c"]
    for name in names:
        peer.ask(1, Queue.Declare(queue=name))
    bindings = [
        ("d.a", "amq.direct", "k", None),
        ("d.b", "amq.direct", "k", None),
        ("d.b", "amq.direct", "k", {"other": 1}),
        ("d.c", "amq.fanout", "", None),
        ("d.a", "amq.topic", "a.*.c", None),
        ("d.b", "amq.topic", "a.#", None),
        ("d.c", "amq.topic", "#.c", None),
        ("d.c", "amq.topic", "", None),
        ("d.a", "amq.headers", "", {"x-match": "all", "k": 1, "l": "x"}),
        ("d.b", "amq.headers", "", {"x-match": "any", "k": 1, "l": "x"}),
        ("d.c", "amq.headers", "", {"x-match": "any"}),
        ("d.c", "amq.headers", "", {"m": None}),
    ]
    for queue, exchange, key, arguments in bindings:
        peer.ask(1, Queue.Bind(queue=queue, exchange=exchange, routing_key=key, arguments=arguments), quiet_s=0.1)
    for exchange, keys in [
        ("amq.direct", ["k", "l", ""]),
        ("amq.fanout", ["any"]),
        ("amq.topic", ["a.b.c", "a", "a.c", "", "c", "a..c", ".", "x.y.c", "A.b.c"]),
        ("", ["d.a", "d.none"]),
    ]:
        for key in keys:
            yield peer.ask(1, Basic.Publish(exchange=exchange, routing_key=key, mandatory=True), f"{exchange}/{key}")
            yield drain(peer, names)
    for headers in [{"k": 1}, {"k": 1, "l": "x"}, {"l": "y"}, {"m": 7}, {}, None, {"k": "1"}]:
        properties = P(headers=headers)
        yield peer.ask(1, Basic.Publish(exchange="amq.headers", mandatory=True), (properties, "h"))
        yield drain(peer, names)
    for headers in [{"CC": ["d.b"]}, {"BCC": ["d.b"]}, {"CC": ["d.b", "d.b"], "BCC": ["d.c"]}]:
        yield peer.ask(1, Basic.Publish(routing_key="d.a"), (P(headers=headers), "copies"))
        yield drain(peer, names)
    yield from failing(connect, [Basic.Publish(routing_key="d.a"), (P(headers={"CC": "d.b"}), "x")])
    peer.ask(1, Exchange.Declare(exchange="d.alt", type="fanout"))
    peer.ask(1, Exchange.Declare(exchange="d.x", type="direct", arguments={"alternate-exchange": "d.alt"}))
    peer.ask(1, Queue.Bind(queue="d.a", exchange="d.x", routing_key="k"))
    yield peer.ask(1, Basic.Publish(exchange="d.x", routing_key="none", mandatory=True), "alternate")
    peer.ask(1, Queue.Bind(queue="d.c", exchange="d.alt"))
    yield peer.ask(1, Basic.Publish(exchange="d.x", routing_key="none", mandatory=True), "alternate")
    yield drain(peer, names)
    peer.ask(1, Exchange.Bind(source="d.alt", destination="d.x", routing_key=""))
    yield peer.ask(1, Basic.Publish(exchange="d.alt", routing_key="k", mandatory=True), "round")
    yield drain(peer, names)
    for name in ["d.alt", "d.x"]:
        peer.ask(1, Exchange.Delete(exchange=name))
    for name in names:
        yield peer.ask(1, Queue.Delete(queue=name))


def consuming(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.q"))
    yield peer.ask(1, Basic.Consume(queue="d.q", consumer_tag="t"))
    properties = P(
        content_type="text/plain", headers={"a": 1, "b": [True, None, "x"], "c": {"d": 2}}, delivery_mode=2,
        priority=3, correlation_id="c", reply_to="r", message_id="m", timestamp=1700000000, type="t", user_id="guest", app_id="a",
    )
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), (properties, "hello"))
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), "")
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), b"x" * 10_000)
    yield peer.ask(1, Basic.Nack(delivery_tag=2, multiple=True, requeue=True))
    yield peer.ask(1, Basic.Ack(delivery_tag=0, multiple=True))
    yield peer.ask(1, Basic.Ack(delivery_tag=0, multiple=True))
    yield peer.ask(1, Basic.Ack(delivery_tag=1))
    channel(peer, 2)
    yield peer.ask(2, Basic.Qos(prefetch_count=2))
    yield peer.ask(2, Basic.Consume(queue="d.q"))
    for body in "abcd":
        peer.say(2, Basic.Publish(routing_key="d.q"), body)
    yield peer.hear()
    yield peer.ask(2, Basic.Reject(delivery_tag=1, requeue=True))
    yield peer.ask(2, Basic.Ack(delivery_tag=2))
    yield peer.ask(2, Basic.Recover(requeue=True))
    yield peer.ask(2, Channel.Close(200, "", 0, 0))
    channel(peer, 3)
    yield peer.ask(3, Basic.Get(queue="d.q"))
    yield peer.ask(3, Basic.Get(queue="d.q"))
    yield peer.ask(3, Basic.Get(queue="d.q", no_ack=True))
    yield peer.ask(3, Basic.Ack(delivery_tag=2, multiple=True))
    yield peer.ask(3, Basic.Get(queue="d.q"))
    yield peer.ask(3, Basic.Consume(queue="d.q", consumer_tag="e", exclusive=True))
    yield from failing(connect, Basic.Consume(queue="d.q"))
    yield peer.ask(3, Basic.Cancel(consumer_tag="e"))
    yield peer.ask(3, Basic.Cancel(consumer_tag="none"))
    yield peer.ask(3, Queue.Delete(queue="d.q"))
    yield from failing(
        connect,
        [Queue.Declare(queue="d.q"), Basic.Consume(queue="d.q", consumer_tag="t"), Basic.Consume(queue="d.q", consumer_tag="t")],
        Basic.Ack(delivery_tag=7),
        Basic.Nack(delivery_tag=7, multiple=True),
        Basic.Reject(delivery_tag=7),
        Basic.Qos(prefetch_size=10),
        Basic.Recover(requeue=False),
        [Basic.Publish(immediate=True), "x"],
        [Basic.Publish(), (P(user_id="other"), "x")],
        [Basic.Publish(), (P(expiration="soon"), "x")],
        [Basic.Publish(), (P(expiration="-1"), "x")],
        Channel.Flow(active=True),
        Channel.Flow(active=False),
        Queue.Delete(queue="d.q"),
    )


def confirms(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.q"))
    yield peer.ask(1, Confirm.Select())
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), "x")
    yield peer.ask(1, Basic.Publish(routing_key="d.none"), "x")
    yield peer.ask(1, Basic.Publish(routing_key="d.none", mandatory=True), "x")
    peer.ask(1, Queue.Declare(queue="d.f", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}))
    yield peer.ask(1, Basic.Publish(routing_key="d.f"), "x")
    yield peer.ask(1, Basic.Publish(routing_key="d.f"), "x")
    yield peer.ask(1, Tx.Select())
    for name in ["d.q", "d.f"]:
        yield from failing(connect, Queue.Delete(queue=name))
    yield from failing(connect, Tx.Commit(), Tx.Rollback(), [Tx.Select(), Confirm.Select()])


def transactions(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.q"))
    yield peer.ask(1, Tx.Select())
    peer.ask(1, Basic.Publish(routing_key="d.q"), "one", Basic.Publish(routing_key="d.none", mandatory=True), "two")
    channel(peer, 2)
    yield peer.ask(2, Basic.Get(queue="d.q", no_ack=True))
    yield peer.ask(1, Tx.Commit())
    yield peer.ask(1, Basic.Get(queue="d.q"))
    yield peer.ask(1, Basic.Ack(delivery_tag=1))
    yield peer.ask(1, Tx.Rollback())
    yield peer.ask(1, Basic.Nack(delivery_tag=1, requeue=True))
    yield peer.ask(2, Basic.Get(queue="d.q", no_ack=True))
    yield peer.ask(1, Tx.Commit())
    yield peer.ask(2, Basic.Get(queue="d.q", no_ack=True))
    yield peer.ask(2, Queue.Delete(queue="d.q"))


def dead_letters(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.dead"))
    to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d.dead"}
    peer.ask(1, Queue.Declare(queue="d.q", arguments=to_dead))
    peer.ask(1, Basic.Publish(routing_key="d.q"), (P(headers={"mine": 1, "CC": ["d.none"]}, expiration="60000"), "rejected"))
    peer.ask(1, Basic.Get(queue="d.q"))
    peer.ask(1, Basic.Reject(delivery_tag=1, requeue=False))
    yield drain(peer, ["d.dead"])
    peer.ask(1, Queue.Declare(queue="d.ttl", arguments={"x-dead-letter-exchange": "amq.fanout", "x-message-ttl": 100}))
    peer.ask(1, Queue.Bind(queue="d.dead", exchange="amq.fanout"))
    peer.ask(1, Basic.Publish(routing_key="d.ttl"), (P(headers={"CC": ["d.none"]}), "expired"))
    time.sleep(0.4)
    yield drain(peer, ["d.dead", "d.ttl"])
    peer.ask(1, Basic.Publish(routing_key="d.ttl"), (P(expiration="50"), "expired by itself"))
    time.sleep(0.4)
    yield drain(peer, ["d.dead", "d.ttl"])
    peer.ask(1, Queue.Declare(queue="d.max", arguments={**to_dead, "x-max-length": 1}))
    peer.ask(1, Basic.Publish(routing_key="d.max"), "first", Basic.Publish(routing_key="d.max"), "second")
    yield drain(peer, ["d.dead", "d.max"])
    # Twice round: rejected into a queue whose messages come back.
    peer.ask(1, Queue.Declare(queue="d.wait", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d.work", "x-message-ttl": 50}))
    peer.ask(1, Queue.Declare(queue="d.work", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d.wait"}))
    peer.ask(1, Basic.Publish(routing_key="d.work"), "again")
    for _ in range(3):
        came = peer.ask(1, Basic.Get(queue="d.work"), least=1)
        yield came
        tag = int(came[0].split("'delivery_tag': ")[1].split(",")[0]) if "GetOk" in came[0] else 0
        peer.ask(1, Basic.Reject(delivery_tag=tag, requeue=False), quiet_s=0.4)
    # Round by expiry alone: it ends.
    peer.ask(1, Queue.Declare(queue="d.round", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d.round", "x-message-ttl": 50}))
    peer.ask(1, Basic.Publish(routing_key="d.round"), "round")
    time.sleep(0.4)
    yield peer.ask(1, Queue.Declare(queue="d.round", passive=True))
    for name in ["d.dead", "d.q", "d.ttl", "d.max", "d.wait", "d.work", "d.round"]:
        yield peer.ask(1, Queue.Delete(queue=name))


def priorities(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.p", arguments={"x-max-priority": 5}))
    for number, priority in enumerate([None, 1, 9, 5, 0, 3]):
        peer.ask(1, Basic.Publish(routing_key="d.p"), (P(priority=priority), str(number)), quiet_s=0.05)
    yield [line for line in drain(peer, ["d.p"]) if "body" in line]
    yield peer.ask(1, Queue.Delete(queue="d.p"))
    peer.ask(1, Queue.Declare(queue="d.s", arguments={"x-single-active-consumer": True}))
    for tag in ["one", "two"]:
        peer.ask(1, Basic.Consume(queue="d.s", consumer_tag=tag, no_ack=True))
    for _ in range(3):
        peer.say(1, Basic.Publish(routing_key="d.s"), "x")
    yield peer.hear()
    peer.ask(1, Basic.Cancel(consumer_tag="one"))
    yield peer.ask(1, Basic.Publish(routing_key="d.s"), "x")
    yield peer.ask(1, Queue.Delete(queue="d.s"))
    peer.ask(1, Queue.Declare(queue="d.c"))
    for tag, priority in [("low", 0), ("high", 10)]:
        peer.ask(1, Basic.Consume(queue="d.c", consumer_tag=tag, no_ack=True, arguments={"x-priority": priority}))
    yield peer.ask(1, Basic.Publish(routing_key="d.c"), "x")
    yield peer.ask(1, Queue.Delete(queue="d.c"))
    yield from failing(
        connect,
        [Queue.Declare(queue="d.c"), Basic.Consume(queue="d.c", arguments={"x-priority": "high"})],
        Queue.Delete(queue="d.c"),
    )


def replies(connect):
    peer = channel(connect())
    server = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.q"))
    yield peer.ask(1, Basic.Consume(queue="amq.rabbitmq.reply-to", consumer_tag="r", no_ack=True))
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), (P(reply_to="amq.rabbitmq.reply-to", correlation_id="1"), "question"))
    server.say(1, Basic.Get(queue="d.q", no_ack=True))
    time.sleep(0.3)
    address = None
    for _ in range(3):
        from pika import frame

        server.socket.settimeout(1)
        server.bytes += server.socket.recv(65536)
        while True:
            used, came = frame.decode_frame(server.bytes)
            if not came:
                break
            server.bytes = server.bytes[used:]
            if isinstance(came, frame.Header):
                address = came.properties.reply_to
        if address:
            break
    yield server.ask(1, Queue.Declare(queue=address, passive=True))
    yield server.ask(1, Basic.Publish(routing_key=address), (P(correlation_id="1"), "answer"))
    yield peer.hear()
    yield server.ask(1, Basic.Publish(routing_key="amq.rabbitmq.reply-to.nonsense", mandatory=True), "nobody")
    yield from failing(
        connect,
        Basic.Consume(queue="amq.rabbitmq.reply-to"),
        [Basic.Publish(), (P(reply_to="amq.rabbitmq.reply-to"), "x")],
        [
            Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True, consumer_tag="a"),
            Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True, consumer_tag="b"),
        ],
    )
    yield peer.ask(1, Queue.Delete(queue="d.q"))


def frames_out_of_place(connect):
    for data in [
        b"\x08\x00\x01\x00\x00\x00\x00\xce",
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x63\xce",
        b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x14\x00\xce",
        b"\x01\x00\x01\x00\x00\x00\x01\x00\x00",
        b"\x01\x00\x01\x7f\xff\xff\xff\x00",
        b"\x03\x00\x01\x00\x00\x00\x01x\xce",
        b"\x01\x00\x00\x00\x00\x00\x05\x00\x3c\x00\x64\x00\xce",
        b"\x01\x00\x07\x00\x00\x00\x05\x00\x3c\x00\x64\x00\xce",
        b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce",
    ]:
        peer = channel(connect())
        peer.raw(data)
        # The texts are the broker's own.
        yield [line.split(", 'reply_text'")[0] for line in peer.hear()]
        peer.end()
    yield from failing(connect, [Basic.Publish(), Queue.Declare(queue="d.x")])
    peer = channel(connect())
    yield peer.ask(1, Channel.Open())
    peer = channel(connect())
    yield peer.ask(1, Exchange.Declare(exchange="d.none", passive=True))
    yield peer.ask(1, Queue.Declare(queue="d.x"))
    yield peer.ask(1, Channel.CloseOk())
    yield peer.ask(1, Channel.Open())


def alternates(connect):
    peer = channel(connect())
    names = ["d.a", "d.b", "d.c"]
    for name in names:
        peer.ask(1, Queue.Declare(queue=name))
    # A chain: what the first does not know goes to the second, and so on.
    peer.ask(1, Exchange.Declare(exchange="d.last", type="fanout"))
    peer.ask(1, Exchange.Declare(exchange="d.middle", type="direct", arguments={"alternate-exchange": "d.last"}))
    peer.ask(1, Exchange.Declare(exchange="d.first", type="topic", arguments={"alternate-exchange": "d.middle"}))
    yield peer.ask(1, Basic.Publish(exchange="d.first", routing_key="k", mandatory=True), "nowhere")
    peer.ask(1, Queue.Bind(queue="d.a", exchange="d.first", routing_key="a.*"))
    peer.ask(1, Queue.Bind(queue="d.b", exchange="d.middle", routing_key="b"))
    peer.ask(1, Queue.Bind(queue="d.c", exchange="d.last"))
    for key in ["a.x", "b", "c"]:
        yield peer.ask(1, Basic.Publish(exchange="d.first", routing_key=key, mandatory=True), key)
        yield drain(peer, names)
    # One key of several that is known is enough.
    yield peer.ask(1, Basic.Publish(exchange="d.first", routing_key="c"), (P(headers={"CC": ["a.y", "b"]}), "copies"))
    yield drain(peer, names)
    # Round: each is the other's.
    peer.ask(1, Exchange.Declare(exchange="d.ping", type="direct", arguments={"alternate-exchange": "d.pong"}))
    peer.ask(1, Exchange.Declare(exchange="d.pong", type="direct", arguments={"alternate-exchange": "d.ping"}))
    yield peer.ask(1, Basic.Publish(exchange="d.ping", routing_key="k", mandatory=True), "round")
    # An exchange that is not there, and the default one.
    peer.ask(1, Exchange.Declare(exchange="d.none", type="direct", arguments={"alternate-exchange": "d.gone"}))
    yield peer.ask(1, Basic.Publish(exchange="d.none", routing_key="k", mandatory=True), "gone")
    peer.ask(1, Exchange.Declare(exchange="d.default", type="direct", arguments={"alternate-exchange": ""}))
    yield peer.ask(1, Basic.Publish(exchange="d.default", routing_key="d.a", mandatory=True), "by name")
    yield drain(peer, names)
    yield from failing(
        connect,
        Exchange.Declare(exchange="d.w", type="direct", arguments={"alternate-exchange": 5}),
        Exchange.Declare(exchange="d.first", type="topic"),
        Exchange.Declare(exchange="d.first", type="topic", arguments={"alternate-exchange": "d.last"}),
    )
    for name in ["first", "middle", "last", "ping", "pong", "none", "default"]:
        peer.ask(1, Exchange.Delete(exchange=f"d.{name}"))
    for name in names:
        yield peer.ask(1, Queue.Delete(queue=name))


def exchanges_to_exchanges(connect):
    peer = channel(connect())
    names = ["d.a", "d.b"]
    for name in names:
        peer.ask(1, Queue.Declare(queue=name))
    for name, kind in [("d.s", "topic"), ("d.t", "direct"), ("d.u", "headers")]:
        peer.ask(1, Exchange.Declare(exchange=name, type=kind))
    yield peer.ask(1, Exchange.Bind(source="d.s", destination="d.t", routing_key="a.#"))
    yield peer.ask(1, Exchange.Bind(source="d.s", destination="d.t", routing_key="a.#"))
    yield peer.ask(1, Exchange.Bind(source="d.t", destination="d.s", routing_key="a.b"))
    yield peer.ask(1, Exchange.Bind(source="d.s", destination="d.u", routing_key="#"))
    peer.ask(1, Queue.Bind(queue="d.a", exchange="d.t", routing_key="a.b"))
    peer.ask(1, Queue.Bind(queue="d.a", exchange="d.s", routing_key="*.b"))
    peer.ask(1, Queue.Bind(queue="d.b", exchange="d.u", arguments={"x-match": "all", "k": "v"}))
    for key, headers in [("a.b", None), ("a.c", {"k": "v"}), ("b", {"k": "v"}), ("c.b", {"k": "w"})]:
        yield peer.ask(1, Basic.Publish(exchange="d.s", routing_key=key, mandatory=True), (P(headers=headers), key))
        yield drain(peer, names)
    yield from failing(connect, Exchange.Delete(exchange="d.t", if_unused=True))
    yield peer.ask(1, Exchange.Unbind(source="d.s", destination="d.t", routing_key="a.#"))
    yield peer.ask(1, Exchange.Unbind(source="d.s", destination="d.t", routing_key="a.#"))
    yield peer.ask(1, Basic.Publish(exchange="d.s", routing_key="a.b", mandatory=True), "direct only")
    yield drain(peer, names)
    # One that goes with its last binding, and what leads to it.
    peer.ask(1, Exchange.Declare(exchange="d.short", type="fanout", auto_delete=True))
    peer.ask(1, Exchange.Bind(source="d.short", destination="d.t", routing_key=""))
    yield peer.ask(1, Exchange.Delete(exchange="d.t"))
    yield from failing(connect, Exchange.Declare(exchange="d.short", passive=True))
    for name in ["d.s", "d.u"]:
        peer.ask(1, Exchange.Delete(exchange=name))
    for name in names:
        yield peer.ask(1, Queue.Delete(queue=name))


def lengths_and_times(connect):
    peer = channel(connect())
    peer.ask(1, Queue.Declare(queue="d.dead"))
    to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d.dead"}

    def filled(arguments, bodies, properties=None):
        peer.ask(1, Queue.Declare(queue="d.l", arguments=arguments))
        for body in bodies:
            peer.say(1, Basic.Publish(routing_key="d.l"), (properties or P(), body))
        peer.hear()
        time.sleep(0.2)
        lines = drain(peer, ["d.l", "d.dead"])
        peer.ask(1, Queue.Delete(queue="d.l"))
        return lines

    yield filled({**to_dead, "x-max-length": 2}, ["a", "b", "c", "d"])
    yield filled({**to_dead, "x-max-length": 0}, ["a"])
    yield filled({**to_dead, "x-max-length-bytes": 5}, ["aa", "bb", "cc", "dddddd"])
    yield filled({**to_dead, "x-max-length": 1, "x-overflow": "reject-publish"}, ["a", "b"])
    yield filled({**to_dead, "x-max-length": 1, "x-overflow": "reject-publish-dlx"}, ["a", "b"])
    yield filled({**to_dead, "x-message-ttl": 0}, ["a"])
    yield filled(to_dead, ["a"], P(expiration="0"))
    yield filled({**to_dead, "x-message-ttl": 60000}, ["a"], P(expiration="100"))
    yield filled({**to_dead, "x-max-length": 2, "x-max-priority": 3}, ["a", "b", "c"], P(priority=2))
    # With somebody who takes it at once, time zero is time enough.
    peer.ask(1, Queue.Declare(queue="d.l", arguments={**to_dead, "x-message-ttl": 0, "x-max-length": 0}))
    peer.ask(1, Basic.Consume(queue="d.l", consumer_tag="t", no_ack=True))
    yield peer.ask(1, Basic.Publish(routing_key="d.l"), "at once")
    peer.ask(1, Basic.Cancel(consumer_tag="t"))
    yield peer.ask(1, Queue.Delete(queue="d.l"))
    # A queue that nobody uses for a while.
    peer.ask(1, Queue.Declare(queue="d.x", arguments={"x-expires": 300}))
    time.sleep(0.2)
    yield peer.ask(1, Queue.Declare(queue="d.x", arguments={"x-expires": 300}))
    time.sleep(0.2)
    yield peer.ask(1, Basic.Get(queue="d.x"))
    time.sleep(1)
    yield peer.ask(1, Queue.Declare(queue="d.x", passive=True))
    channel(peer, 2)
    yield peer.ask(2, Queue.Delete(queue="d.dead"))


def quorum(connect):
    peer = channel(connect())
    wait_s = 1
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "d.dead"}
    peer.ask(1, Queue.Declare(queue="d.dead"), quiet_s=wait_s)
    yield peer.ask(1, Queue.Declare(queue="d.m", durable=True, arguments=arguments), quiet_s=wait_s, least=1)
    yield peer.ask(1, Confirm.Select(), quiet_s=wait_s)
    yield peer.ask(1, Basic.Publish(routing_key="d.m"), (P(headers={"mine": 1}), "poison"), quiet_s=wait_s, least=1)
    # Each life of a consumer gives it back.
    for number in range(1, 5):
        channel(peer, number + 1)
        came = peer.ask(number + 1, Basic.Consume(queue="d.m", consumer_tag="t"), quiet_s=wait_s, least=1)
        # RabbitMQ gives what came and consume-ok in either order.
        yield sorted(came)
        yield peer.ask(number + 1, Channel.Close(200, "", 0, 0), quiet_s=wait_s, least=1)
    yield drain(peer, ["d.dead"])[-1:]
    yield from failing(
        connect,
        Queue.Declare(queue="d.m", durable=True),
        Queue.Declare(queue="d.w", durable=True, auto_delete=True, arguments={"x-queue-type": "quorum"}),
        Queue.Declare(queue="", durable=True, arguments={"x-queue-type": "quorum"}),
    )
    channel(peer, 9)
    for name in ["d.m", "d.dead"]:
        yield peer.ask(9, Queue.Delete(queue=name), quiet_s=wait_s, least=1)


def many_channels(connect):
    peer = channel(connect())
    channel(peer, 2)
    peer.ask(1, Queue.Declare(queue="d.q"))
    # Two messages, frame by frame by turns.
    from pika import frame

    first, second = [frame.Method(number, Basic.Publish(routing_key="d.q")).marshal() for number in (1, 2)]
    headers = [frame.Header(number, 4, P()).marshal() for number in (1, 2)]
    bodies = [frame.Body(number, body).marshal() for number, body in [(1, b"on"), (2, b"tw"), (1, b"e!"), (2, b""), (2, b"o!")]]
    peer.raw(first + second + headers[1] + headers[0] + b"".join(bodies))
    yield peer.hear()
    yield drain(peer, ["d.q"])
    yield peer.ask(1, Basic.Publish(routing_key="d.q"), "a", Basic.Publish(routing_key="d.q"), "b", Basic.Publish(routing_key="d.q"), "c")
    # Who gets, who consumes, and what goes back when one of them closes.
    yield peer.ask(1, Basic.Get(queue="d.q"))
    yield peer.ask(2, Basic.Qos(prefetch_count=1, global_qos=True))
    yield peer.ask(2, Basic.Consume(queue="d.q", consumer_tag="t"))
    yield peer.ask(2, Basic.Get(queue="d.q"))
    yield peer.ask(1, Channel.Close(200, "", 0, 0))
    yield peer.ask(2, Basic.Ack(delivery_tag=2))
    yield peer.ask(2, Basic.Ack(delivery_tag=1))
    yield peer.ask(2, Basic.Recover(requeue=True))
    yield peer.ask(2, Basic.Cancel(consumer_tag="t"))
    yield peer.ask(2, Basic.Nack(delivery_tag=0, multiple=True, requeue=False))
    yield peer.ask(2, Queue.Delete(queue="d.q"))
    # A transaction that is not committed, and its channel closes.
    channel(peer, 3)
    peer.ask(3, Queue.Declare(queue="d.q"))
    peer.ask(3, Basic.Publish(routing_key="d.q"), "kept")
    peer.ask(3, Tx.Select())
    yield peer.ask(3, Basic.Get(queue="d.q"))
    peer.ask(3, Basic.Ack(delivery_tag=1), Basic.Publish(routing_key="d.q"), "never")
    yield peer.ask(3, Channel.Close(200, "", 0, 0))
    yield drain(channel(peer, 1), ["d.q"])
    yield peer.ask(1, Queue.Delete(queue="d.q"))


def contents_out_of_place(connect):
    from pika import frame

    publish = frame.Method(1, Basic.Publish(routing_key="d.none")).marshal()
    header = frame.Header(1, 3, P()).marshal()
    body = frame.Body(1, b"abc").marshal()
    long_header = header[:11] + b"\x00" * 7 + b"\xff" + header[19:]
    other_class = header[:8] + b"\x32" + header[9:]
    for data in [
        publish + body,
        publish + publish,
        publish + header + header,
        publish + header + frame.Body(1, b"abcd").marshal(),
        publish + header + frame.Body(1, b"").marshal() + body,
        publish + header + b"\x08\x00\x00\x00\x00\x00\x00\xce" + body,
        header,
        body,
        publish + other_class,
        publish + header + frame.Method(1, Channel.Close(200, "", 0, 0)).marshal(),
        publish + long_header[:11] + b"\x7f" * 8 + long_header[19:],
        frame.Method(1, Basic.Publish(exchange="d.none")).marshal() + header + body + publish + header + body,
    ]:
        peer = channel(connect())
        peer.raw(data)
        yield [line.split(", 'reply_text'")[0] for line in peer.hear()]
        yield [line.split(", 'reply_text'")[0] for line in peer.ask(1, Basic.Qos(prefetch_count=1))]
        peer.end()


ALL = [
    alternates, exchanges_to_exchanges, lengths_and_times, quorum, many_channels, contents_out_of_place,
    handshake, queues, deleting, exchanges, routing, consuming, confirms, transactions, dead_letters, priorities, replies,
    frames_out_of_place,
]
