"""See `fixture`. What each directory holds is told at `main`."""

import pathlib
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))
from harness import broker as brokers
from harness import wire
from kafka import KafkaProducer

GOLDEN = HERE.parent.parent / "golden" / "kafka"
FIRST_MS = 1_750_000_000_000
ROLL_MS = 60_000


def main():
    """
    sound-0        batches with every codec, a committed transaction, three segments
    compacted-0    keys written again and again in several segments, and compacted: gaps within and between them
    aborted-0      a transaction that was aborted
    unfinished-0   a transaction that was not over when the broker stopped
    """
    with tempfile.TemporaryDirectory() as folder:
        kafka = brokers.Kafka(folder, "log.cleaner.backoff.ms=200", "log.index.size.max.bytes=4096")
        kafka.start()
        settings = [("segment.ms", str(ROLL_MS)), ("retention.ms", "-1")]
        for topic in ["sound", "aborted", "unfinished"]:
            wire.create_topic(kafka.address, topic, 1, settings)
        compact = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.0"), ("segment.ms", str(ROLL_MS))]
        wire.create_topic(kafka.address, "compacted", 1, compact)
        sound(kafka.address)
        compacted(kafka.address)
        transaction(kafka.address, "aborted", lambda producer: producer.abort_transaction())
        transaction(kafka.address, "unfinished", lambda producer: None)
        log = pathlib.Path(folder) / "data" / "compacted-0"
        while sum(file.stat().st_size for file in log.glob("*.log")) > 4_000:
            time.sleep(0.5)
        kafka.stop()
        shutil.rmtree(GOLDEN, ignore_errors=True)
        for topic in ["sound", "compacted", "aborted", "unfinished"]:
            copy(pathlib.Path(folder) / "data" / f"{topic}-0")


def producer(address, **more):
    return KafkaProducer(bootstrap_servers=address, acks="all", linger_ms=50, **more)


def sound(address):
    for number, codec in enumerate([None, "gzip", "snappy", "lz4", "zstd"]):
        sender = producer(address, compression_type=codec)
        for record in range(3):
            value = f"record {record} of {codec}, ".encode() * 10
            at = FIRST_MS + number // 2 * 2 * ROLL_MS + record
            sender.send("sound", value, f"key {record}".encode(), [("codec", str(codec).encode())], 0, at)
        sender.close()
    transaction(address, "sound", lambda producer: producer.commit_transaction())


def compacted(address):
    sender = producer(address)
    for record in range(60):
        at = FIRST_MS + record // 10 * 2 * ROLL_MS
        sender.send("compacted", b"%d" % record * 40, b"key %d" % (record * record % 7), None, 0, at)
        sender.flush()
    sender.close()


def transaction(address, topic, end):
    sender = producer(address, transactional_id=topic)
    sender.init_transactions()
    sender.begin_transaction()
    sender.send(topic, b"in a transaction", b"key", None, 0, FIRST_MS + 4 * ROLL_MS)
    sender.flush()
    end(sender)
    sender._sender.force_close() if topic == "unfinished" else sender.close()


def copy(directory):
    to = GOLDEN / directory.name
    to.mkdir(parents=True)
    for file in sorted(directory.iterdir()):
        if file.suffix in (".log", ".index", ".timeindex", ".txnindex") or file.name == "partition.metadata":
            shutil.copy(file, to / file.name)


main()
