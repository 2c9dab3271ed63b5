"""RabbitMQ's share of a load that goes on while the broker is killed, stopped or starved: publishers with confirms and workers that
settle, by pika. Nothing confirmed is lost, nothing settled comes back but what was settled just before a kill, and then as
redelivered; what comes for the first time comes in order."""

import random
import socket
import threading
import time

from harness import cases, packages

QUEUES = ["kills.one", "kills.two", "kills.three"]
PUBLISHERS = 3
WORKERS_PER_QUEUE = 2
# A settlement that is older than this when the broker is killed is not forgotten.
SETTLED_FOR_GOOD_S = 0.5


class QueueLoad:
    name = "AMQP"

    def __init__(self, broker, per_second=None):
        """As fast as it goes, or so many messages a second from each publisher."""
        self.broker = broker
        self.pause_s = 1 / per_second if per_second else 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.confirmed = {queue: set() for queue in QUEUES}
        self.settled = {queue: {} for queue in QUEUES}
        self.killed_at = []
        self.wrong = []
        self.counts = {"confirmed": 0, "settled": 0, "again": 0}
        # Milliseconds from a publish to its confirm, since somebody has looked.
        self.latencies_ms = []
        self.threads = []

    def install(self):
        reason = packages.use("amqp/pika")
        if reason is None:
            import pika

            self.pika = pika
            self.lost = (pika.exceptions.AMQPError, ConnectionError, OSError)
        return reason

    def connection(self):
        host, port = self.broker.amqp.rsplit(":", 1)
        parameters = self.pika.ConnectionParameters(host, int(port), socket_timeout=5, blocked_connection_timeout=30, heartbeat=10)
        return self.pika.BlockingConnection(parameters)

    def until_over(self, work):
        while not self.over.is_set():
            try:
                connection = self.connection()
                work(connection)
                connection.close()
            except self.lost:
                time.sleep(0.02)
            except Exception as error:  # A thread that ends in silence would hide what ended it.
                self.wrong.append(f"a client ends with {error!r}")
                return

    def publisher(self, number):
        """Publishes numbers that rise, to every queue in turn."""
        count = 0

        def work(connection):
            nonlocal count
            channel = connection.channel()
            for queue in QUEUES:
                channel.queue_declare(queue, durable=True)
            channel.confirm_delivery()
            while not self.over.is_set():
                count += 1
                queue = QUEUES[count % len(QUEUES)]
                properties = self.pika.BasicProperties(delivery_mode=2)
                start = time.monotonic()
                channel.basic_publish("", queue, f"{number} {count}".encode(), properties, mandatory=True)
                with self.lock:
                    self.latencies_ms.append((time.monotonic() - start) * 1000)
                    self.confirmed[queue].add((number, count))
                    self.counts["confirmed"] += 1
                if self.pause_s:
                    connection.sleep(self.pause_s)

        self.until_over(work)

    def worker(self, queue):
        def work(connection):
            since = time.monotonic()
            channel = connection.channel()
            channel.basic_qos(prefetch_count=20)
            last = {}
            for method, _, body in channel.consume(queue, inactivity_timeout=0.2):
                if self.over.is_set():
                    return
                if method is None:
                    continue
                name = tuple(int(part) for part in body.split())
                self.seen(queue, name, method.redelivered)
                if not method.redelivered:
                    if last.get(name[0], 0) > name[1]:
                        self.wrong.append(f"{queue}: {name} comes behind {last[name[0]]}")
                    last[name[0]] = name[1]
                channel.basic_ack(method.delivery_tag)
                with self.lock:
                    self.settled[queue][name] = since, time.monotonic()
                    self.counts["settled"] += 1

        self.until_over(work)

    def seen(self, queue, name, redelivered):
        with self.lock:
            if name not in self.settled[queue]:
                return
            since, at = self.settled[queue][name]
            self.counts["again"] += 1
            # It may have been settled just before a kill, or on a connection that a kill had cut: none lives through one.
            excused = any(since <= killed <= at + SETTLED_FOR_GOOD_S for killed in self.killed_at)
            if not redelivered or not excused:
                nearest = min((killed - at for killed in self.killed_at), key=abs, default=float("inf"))
                self.wrong.append(
                    f"{queue}: {name} was settled {nearest:.3f} s before a kill, and is back; redelivered: {redelivered}"
                )

    def start(self):
        self.threads = [threading.Thread(target=self.publisher, args=[number], daemon=True) for number in range(PUBLISHERS)]
        self.threads += [
            threading.Thread(target=self.worker, args=[queue], daemon=True) for queue in QUEUES for _ in range(WORKERS_PER_QUEUE)
        ]
        for thread in self.threads:
            thread.start()
        cases.until(lambda: self.counts["settled"] > 0, "a first settlement", self.broker.folder)

    def killed(self):
        """The broker is about to be killed, or has just been."""
        with self.lock:
            self.killed_at.append(time.monotonic())

    def look(self, when=""):
        if self.wrong:
            raise cases.Failed("\n".join([f"{len(self.wrong)} promises to RabbitMQ's clients are broken{when}:", *self.wrong[:10]]))

    def latencies(self):
        """Those since the last look."""
        with self.lock:
            self.latencies_ms, since = [], self.latencies_ms
        return since

    def finish(self):
        time.sleep(1)
        self.over.set()
        for thread in self.threads:
            thread.join()
        channel = self.connection().channel()
        for queue in QUEUES:
            left = set()
            while True:
                method, _, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    break
                left.add(tuple(int(part) for part in body.split()))
            missing = self.confirmed[queue] - left - set(self.settled[queue])
            if missing:
                self.wrong.append(f"{queue}: {len(missing)} confirmed messages are lost, such as {sorted(missing)[:5]}")
        self.look()
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def abandon(self):
        self.over.set()


def low_port():
    """None that the kernel might give to a client which looks for the broker while that is down."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
