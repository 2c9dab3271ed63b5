"""kafka-python. The contract is in ../README.md."""

import pathlib
import signal
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
from harness import records
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CommitFailedError, RebalanceInProgressError


def produce(address, topic, file, codec):
    codec = None if codec == "none" else codec
    producer = KafkaProducer(
        bootstrap_servers=address, acks="all", compression_type=codec, linger_ms=20, batch_size=256 << 10
    )
    futures = []
    for (partition, _), record in records.read(file):
        line, _, rest = record.partition(b"\n")
        _, _, timestamp_ms, key_bytes, value_bytes, headers = line.decode().split(" ")
        key_bytes, value_bytes = int(key_bytes), int(value_bytes)
        key = None if key_bytes < 0 else rest[:key_bytes]
        value = None if value_bytes < 0 else rest[max(key_bytes, 0) : -1]
        futures.append(producer.send(topic, value, key, decode(headers), partition, int(timestamp_ms)))
    producer.flush()
    for future in futures:
        future.get(timeout=30)
    producer.close()


def decode(headers):
    pairs = [header.split("=") for header in headers.split(",") if header != "-"]
    return [(name, bytes.fromhex(value)) for name, value in pairs]


def encode(message):
    headers = ",".join(f"{name}={value.hex()}" for name, value in message.headers) or "-"
    return records.encode(
        message.partition, message.offset, message.timestamp, message.key, message.value, headers
    )


def consume(address, topic, out, count):
    consumer = KafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, partition) for partition in range(records.PARTITIONS)])
    left = int(count)
    with open(out, "wb") as file:
        while left > 0:
            for messages in consumer.poll(timeout_ms=1000).values():
                file.writelines(map(encode, messages))
                left -= len(messages)
    consumer.close()


def group(address, topic, out, name):
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=address,
        group_id=name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
    )
    with open(out, "wb", buffering=0) as file:
        while not stopped:
            polled = consumer.poll(timeout_ms=200)
            for messages in polled.values():
                file.write(b"".join(map(encode, messages)))
            if polled:
                consumer.commit_async()
    try:
        consumer.commit()
    except (CommitFailedError, RebalanceInProgressError):
        pass  # Another member joins or leaves just now: what was not committed is read twice.
    consumer.close()


{"produce": produce, "consume": consume, "group": group}[sys.argv[1]](*sys.argv[2:])
