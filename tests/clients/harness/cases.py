"""What each client is put through. A case raises `Failed` when something is not as it must be."""

import signal
import subprocess
import time

from harness import records, wire
from harness.broker import CLIENTS

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
MEMBERS = 4
# A client that takes longer hangs.
PATIENCE_S = 180


class Failed(Exception):
    """A case's finding."""


class Client:
    """One of the folders beside this one: `install`, then `client`."""

    def __init__(self, name):
        self.name = name
        self.folder = CLIENTS / name

    def install(self):
        """Why it cannot be had here, or None."""
        done = subprocess.run([self.folder / "install"], stderr=subprocess.PIPE, text=True, check=False)
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if done.returncode not in (0, 77):
            raise Failed(f"its install failed:\n{done.stderr}")
        return reason if done.returncode == 77 else None

    def run(self, log, *arguments):
        process = self.start(log, *arguments)
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed(f"{arguments[0]} takes more than {PATIENCE_S} s\n{tail(log)}") from None
        if code != 0:
            raise Failed(f"{arguments[0]} exits with {code}\n{tail(log)}")

    def start(self, log, *arguments):
        with open(log, "ab") as file:
            return subprocess.Popen([self.folder / "client", *map(str, arguments)], stdout=file, stderr=file)


def tail(log):
    with open(log, "rb") as file:
        return file.read()[-3000:].decode(errors="replace")


class Sent:
    """A file of records and what is in it."""

    def __init__(self, path):
        self.path = path
        self.records = records.read(path)
        self.by_offset = dict(self.records)
        self.ends = [0] * records.PARTITIONS
        for (partition, _), _ in self.records:
            self.ends[partition] += 1

    def split(self, folder, parts):
        """Files of as many records each, to send one after the other."""
        paths = [folder / f"part-{part}" for part in range(parts)]
        for part, path in enumerate(paths):
            start, end = (len(self.records) * at // parts for at in (part, part + 1))
            path.write_bytes(b"".join(record for _, record in self.records[start:end]))
        return paths


def new_topic(broker, topic):
    wire.create_topic(broker.address, topic, records.PARTITIONS, [("retention.ms", "-1")])


def alone(client, broker, folder, sent, codec, topic):
    """One process produces, one consumes from the start: the same records, each once, in order."""
    new_topic(broker, topic)
    client.run(folder / "log", "produce", broker.address, topic, sent.path, codec)
    if (ends := wire.ends(broker.address, topic, records.PARTITIONS)) != sent.ends:
        raise Failed(f"the log ends at {ends}, not at {sent.ends}")
    received(client, broker, folder, sent, topic)
    return f"{len(sent.records)} records"


def received(client, broker, folder, sent, topic):
    """Consumes a topic from its start: it must hold what was sent, each record once, in order."""
    client.run(folder / "log", "consume", broker.address, topic, folder / "out", len(sent.records))
    next_offsets = [0] * records.PARTITIONS
    for (partition, offset), record in records.read(folder / "out"):
        if offset != next_offsets[partition]:
            raise Failed(f"partition {partition}: offset {offset} comes where {next_offsets[partition]} is due")
        check(sent, (partition, offset), record)
        next_offsets[partition] += 1
    if next_offsets != sent.ends:
        raise Failed(f"received up to {next_offsets}, sent up to {sent.ends}")


def check(sent, place, record):
    expected = sent.by_offset.get(place)
    if record != expected:
        raise Failed(f"partition {place[0]} offset {place[1]}: {records.difference(expected, record)}")


def group(client, broker, folder, sent, codec, topic):
    """Four consumers share eight partitions; one is killed while records come in. Together they get every record, and
    when they have stopped, the group's committed offsets are the log's ends."""
    new_topic(broker, topic)
    outs = [folder / f"member-{member}" for member in range(MEMBERS)]
    members = [client.start(folder / "log", "group", broker.address, topic, out, topic) for out in outs]
    try:
        until(lambda: wire.members(broker.address, topic) == ("Stable", MEMBERS), "four members", folder)
        seen = Seen(sent, outs)
        for number, half in enumerate(sent.split(folder, 2)):
            client.run(folder / "log", "produce", broker.address, topic, half, codec)
            if number == 0:
                until(lambda: seen.count() > len(sent.records) // 10, "a first share of the records", folder)
                members[0].kill()
                members[0].wait()
        until(lambda: seen.count() == len(sent.records), f"all {len(sent.records)} records", folder, seen.count)
        for member in members[1:]:
            member.send_signal(signal.SIGTERM)
        codes = [member.wait(PATIENCE_S) for member in members[1:]]
        if codes != [0] * (MEMBERS - 1):
            raise Failed(f"the members that were asked to stop exit with {codes}\n{tail(folder / 'log')}")
    finally:
        for member in members:
            member.kill()
            member.wait()
    committed = wire.committed(broker.address, topic, topic, records.PARTITIONS)
    if committed != sent.ends:
        raise Failed(f"committed {committed}, the log ends at {sent.ends}")
    return f"{len(sent.records)} records, {seen.received - len(sent.records)} of them twice"


class Seen:
    """Which records the members of a group have written so far, each checked against what was sent."""

    def __init__(self, sent, outs):
        self.sent = sent
        self.readers = [records.Reader(out) for out in outs]
        self.places = set()
        self.received = 0

    def count(self):
        for reader in self.readers:
            for place, record in reader.read():
                check(self.sent, place, record)
                self.places.add(place)
                self.received += 1
        return len(self.places)


def until(condition, what, folder, progress=lambda: ""):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {PATIENCE_S} s for {what}; {progress()}\n{tail(folder / 'log')}")
        time.sleep(0.1)
