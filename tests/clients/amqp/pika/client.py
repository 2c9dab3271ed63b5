"""A day's work with pika: see ../README.md for what every client does."""

import sys

import pika

COUNT = 1000


def main(address):
    host, port = address.rsplit(":", 1)
    connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port), heartbeat=10))
    channel = connection.channel()
    for queue in ["pika.work", "pika.dead", "pika.rpc"]:
        channel.queue_delete(queue)
    channel.exchange_delete("pika.topic")
    channel.exchange_declare("pika.topic", "topic", durable=True)
    channel.queue_declare("pika.dead", durable=True)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "pika.dead"}
    channel.queue_declare("pika.work", durable=True, arguments=arguments)
    channel.queue_bind("pika.work", "pika.topic", "a.#")
    channel.confirm_delivery()
    for number in range(COUNT):
        properties = pika.BasicProperties(delivery_mode=2, headers={"n": number}, message_id=str(number))
        channel.basic_publish("pika.topic", "a.b", f"body {number}".encode(), properties, mandatory=True)
    print("confirmed", COUNT)
    try:
        channel.basic_publish("pika.topic", "nowhere", b"x", mandatory=True)
    except pika.exceptions.UnroutableError as error:
        returned = error.messages[0].method
        print("returned", returned.reply_code, returned.reply_text)
    work(connection)
    dead(connection)
    rpc(connection)
    transaction(connection)
    failure(connection)
    print("deleted", connection.channel().queue_delete("pika.work").method.message_count)
    connection.close()
    print("closed")


def work(connection):
    channel = connection.channel()
    channel.basic_qos(prefetch_count=50)
    numbers = []
    redelivered = 0
    for method, properties, body in channel.consume("pika.work", inactivity_timeout=10):
        number = properties.headers["n"]
        assert body == f"body {number}".encode() and properties.delivery_mode == 2, (body, properties)
        numbers.append(number)
        redelivered += method.redelivered
        if number % 2 == 0:
            channel.basic_ack(method.delivery_tag)
        else:
            channel.basic_reject(method.delivery_tag, requeue=False)
        if len(numbers) == COUNT:
            break
    channel.cancel()
    print("in order", numbers == list(range(COUNT)), "redelivered", redelivered)
    print("empty", channel.basic_get("pika.work") == (None, None, None))
    channel.close()


def dead(connection):
    channel = connection.channel()
    count = 0
    while True:
        method, properties, _ = channel.basic_get("pika.dead")
        if method is None:
            break
        death = properties.headers["x-death"][0]
        if count == 0:
            print("death", death["reason"], death["queue"], death["exchange"], death["routing-keys"], death["count"])
        count += 1
        last = method.delivery_tag
    channel.basic_ack(last, multiple=True)
    print("dead", count)
    channel.close()


def rpc(connection):
    client, server = connection.channel(), connection.channel()
    server.queue_declare("pika.rpc", exclusive=True)
    answers = []
    client.basic_consume("amq.rabbitmq.reply-to", lambda *delivery: answers.append(delivery[3]), auto_ack=True)

    def serve(channel, method, properties, body):
        channel.basic_publish("", properties.reply_to, body.upper())
        channel.basic_ack(method.delivery_tag)

    server.basic_consume("pika.rpc", serve)
    client.basic_publish("", "pika.rpc", b"question", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    while not answers:
        connection.process_data_events(1)
    print("answer", answers[0].decode())
    client.close()
    server.close()


def transaction(connection):
    channel = connection.channel()
    channel.tx_select()

    def count():
        return channel.queue_declare("pika.work", passive=True).method.message_count

    for end in [channel.tx_rollback, channel.tx_commit]:
        for _ in range(3):
            channel.basic_publish("", "pika.work", b"x", pika.BasicProperties(delivery_mode=2))
        end()
        print("after", end.__name__, count())
    channel.close()


def failure(connection):
    channel = connection.channel()
    try:
        channel.queue_declare("pika.none", passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        print("refused", error.reply_code, error.reply_text)


main(sys.argv[1])
