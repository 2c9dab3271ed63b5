"""Kafka's share of a load that goes on while the broker is killed, stopped or starved: an idempotent producer at acks=all, by
librdkafka, and a group that commits. Nothing acknowledged may be lost, order must hold, nothing may be stored twice, and committed
offsets may not go back."""

import signal

from harness import cases, records, wire

TOPIC, GROUP = "killed", "killed-group"
MEMBERS = 2


class LogLoad:
    name = "Kafka"

    def __init__(self, broker, folder, per_second=2_000):
        self.client = cases.Client("rdkafka")
        self.broker, self.folder, self.per_second = broker, folder, per_second
        self.log, self.acknowledged = folder / "log", folder / "acknowledged"
        self.processes = []

    def install(self):
        return self.client.install()

    def start(self):
        cases.new_topic(self.broker, TOPIC)
        address = self.broker.address
        self.outs = [self.folder / f"member-{member}" for member in range(MEMBERS)]
        self.members = [self.client.start(self.log, "group", address, TOPIC, out, GROUP) for out in self.outs]
        self.producer = self.client.start(self.log, "stream", address, TOPIC, self.acknowledged, self.per_second)
        self.processes = [self.producer, *self.members]
        self.commits = Commits(self.broker)
        # There is something to be lost before anything happens.
        cases.until(lambda: max(self.commits.look()) > 0, "a first commit", self.folder)

    def look(self, when=""):
        self.commits.look(when)
        if (code := self.producer.poll()) is not None:
            raise cases.Failed(f"the producer ended with {code}{when}\n{cases.tail(self.log)}")

    def killed(self):
        """The broker is about to be killed, or has just been."""

    def latencies(self):
        """The producer does not tell."""
        return []

    def finish(self):
        self.producer.send_signal(signal.SIGTERM)
        if (code := self.producer.wait(120)) != 0:
            raise cases.Failed(f"the producer ended with {code}\n{cases.tail(self.log)}")
        ends = wire.ends(self.broker.address, TOPIC, records.PARTITIONS)
        cases.until(lambda: self.commits.look() == ends, f"commits up to {ends}", self.folder, self.commits.look)
        for member in self.members:
            member.send_signal(signal.SIGTERM)
        if any(member.wait(60) for member in self.members):
            raise cases.Failed(f"a member did not leave well\n{cases.tail(self.log)}")
        self.client.run(self.log, "consume", self.broker.address, TOPIC, self.folder / "all", sum(ends))
        stored = check_log(self.folder / "all", ends)
        count = check_acknowledged(self.acknowledged, stored)
        check_members(self.outs, stored)
        return f"{count} records acknowledged and there, {len(stored)} stored, {self.commits.seen} looks at commits"

    def abandon(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Commits:
    """What the group has committed, as the broker says. It must never be less than it was."""

    def __init__(self, broker):
        self.broker = broker
        self.highest = [-1] * records.PARTITIONS
        self.seen = 0

    def look(self, when=""):
        now = wire.committed(self.broker.address, GROUP, TOPIC, records.PARTITIONS)
        if any(offset < before for offset, before in zip(now, self.highest)):
            raise cases.Failed(f"commits went back{when}: from {self.highest} to {now}")
        self.highest, self.seen = now, self.seen + 1
        return now


def numbered(number):
    """A record's value by its number; the producer knows it, too."""
    length = 100_000 if number % 500 == 0 else number * 7919 % 1000
    word = f"{number} ".encode()
    return (word * (length // len(word) + 1))[:length]


def check_log(path, ends):
    """Every offset is there, numbers rise within a partition, and values are theirs. Gives the numbers by place."""
    stored, last, expected = {}, {}, [0] * records.PARTITIONS
    for (partition, offset), record in records.read(path):
        line, _, rest = record.partition(b"\n")
        key_bytes = int(line.split(b" ")[3])
        number = int(rest[:key_bytes])
        if offset != expected[partition]:
            raise cases.Failed(f"partition {partition}: offset {offset} where {expected[partition]} is due")
        if number <= last.get(partition, -1) or number % records.PARTITIONS != partition:
            raise cases.Failed(f"partition {partition}: {number} comes after {last[partition]}, at offset {offset}")
        if rest[key_bytes:-1] != numbered(number):
            raise cases.Failed(f"partition {partition} offset {offset}: not the value of {number}")
        expected[partition], last[partition], stored[partition, offset] = offset + 1, number, number
    if expected != ends:
        raise cases.Failed(f"the log ends at {ends}, what can be read at {expected}")
    return stored


def check_acknowledged(path, stored):
    lines = path.read_text().splitlines()
    for line in lines:
        partition, offset, number = map(int, line.split())
        if stored.get((partition, offset)) != number:
            raise cases.Failed(f"{number} was acknowledged at offset {offset} of partition {partition}: {stored.get((partition, offset))} is there")
    return len(lines)


def check_members(outs, stored):
    """Together the members got every record."""
    places = {place for out in outs for place, _ in records.read(out)}
    if places != stored.keys():
        raise cases.Failed(f"the group missed {sorted(stored.keys() - places)[:5]} and more")
