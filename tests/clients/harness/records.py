"""Files of records: what goes in, what came out, and whether the two are the same.

A record is a line and two runs of bytes:

    PARTITION OFFSET TIMESTAMP_MS KEY_BYTES VALUE_BYTES HEADERS\n KEY VALUE \n

A length of -1 is a null. HEADERS is `-`, or `name=hex` joined by commas; `name` alone has a null for a value. The offset
is the one that the record must get in a topic that was empty: so a file that comes back must hold the same lines and bytes.
"""

import random

PARTITIONS = 8
# Some time in 2024. Fixed, so that a seed always means the same bytes.
FIRST_TIMESTAMP_MS = 1_720_000_000_000
# Sizes of values: how many of a hundred thousand, from, to. The smallest two kinds are null and empty.
SIZES = [(2_000, -1, -1), (2_000, 0, 0), (76_000, 1, 200), (17_000, 200, 2_000), (2_900, 2_000, 20_000), (100, 20_000, 300_000)]
WORDS = b"stream mill water wheel river log batch offset leader epoch group commit flush segment index consumer producer ".split()
# kcat's headers are the same for all messages, and printed as they are.
KCAT_HEADERS = "kind=event,kind=test,source=kcat"


def generate(path, count, seed=1, plain=False):
    """Writes `count` records, the same for each seed. `plain` keeps to what kcat can say: no timestamps, no headers of a
    record's own, and no difference between null and empty."""
    rng = random.Random(seed)
    text = b" ".join(rng.choice(WORDS) for _ in range(200_000))
    weights = [kind[0] for kind in SIZES]
    offsets = [0] * PARTITIONS
    with open(path, "wb") as out:
        for number, (_, least, most) in enumerate(rng.choices(SIZES, weights, k=count)):
            value = _bytes(rng, text, rng.randint(least, most))
            # kafka-python wants a key or a value, so a tombstone has a key.
            key = _bytes(rng, text, rng.choice([8 if value is None else -1, 0, 1, 8, 8, 8, 8, rng.randint(9, 60)]))
            headers = _headers(rng)
            timestamp_ms = FIRST_TIMESTAMP_MS + number * 7 + rng.randint(-1000, 1000)
            if plain:
                value, key, headers, timestamp_ms = value or None, key or None, KCAT_HEADERS, 0
            partition = rng.randrange(PARTITIONS)
            out.write(encode(partition, offsets[partition], timestamp_ms, key, value, headers))
            offsets[partition] += 1


def encode(partition, offset, timestamp_ms, key, value, headers):
    lengths = [-1 if field is None else len(field) for field in (key, value)]
    line = f"{partition} {offset} {timestamp_ms} {lengths[0]} {lengths[1]} {headers}\n"
    return line.encode() + (key or b"") + (value or b"") + b"\n"


def _bytes(rng, text, length):
    """Half of the fields compress well, half not at all."""
    if length < 0:
        return None
    if rng.random() < 0.5:
        return rng.randbytes(length)
    start = rng.randrange(len(text) - length)
    return text[start : start + length]


def _headers(rng):
    """None for most; else up to three, often with the same name twice. The same names stand together, since KafkaJS
    keeps headers by name."""
    if rng.random() < 0.7:
        return "-"
    names = sorted(rng.choice(["trace", "kind", "schema"]) for _ in range(rng.randint(1, 3)))
    return ",".join(f"{name}={rng.randbytes(rng.choice([0, 1, 16])).hex()}" for name in names)


class Reader:
    """Reads a file of records that may still be written to: each `read` returns what has become whole since the last."""

    def __init__(self, path):
        self.path = path
        self.rest = b""
        self.position = 0

    def read(self):
        """A list of ((partition, offset), record), a record being all of its bytes."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.position)
                new = file.read()
        except FileNotFoundError:
            return []
        self.position += len(new)
        data, at, records = self.rest + new, 0, []
        while (line_end := data.find(b"\n", at)) >= 0:
            fields = data[at:line_end].split(b" ")
            if len(fields) != 6:
                raise ValueError(f"{self.path}: this is no record: {data[at : at + 80]!r}")
            end = line_end + 1 + max(int(fields[3]), 0) + max(int(fields[4]), 0) + 1
            if end > len(data):
                break
            records.append(((int(fields[0]), int(fields[1])), data[at:end]))
            at = end
        self.rest = data[at:]
        return records


def read(path):
    """All records of a whole file."""
    reader = Reader(path)
    records = reader.read()
    if reader.rest:
        raise ValueError(f"{path} ends within a record")
    return records


def difference(expected, record):
    """What is wrong with a record, for people."""
    if expected is None:
        return f"nobody sent {record[:100]!r}"
    return f"sent {len(expected)} bytes {expected[:100]!r}, received {len(record)} bytes {record[:100]!r}"
