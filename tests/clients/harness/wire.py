"""The few requests that a test asks of its own, so that it relies on none of the clients under test. Old versions, which
have no compact fields and which Kafka 4 and Millstream still serve."""

import socket
import struct
import time

CREATE_TOPICS, FETCH, LIST_OFFSETS, OFFSET_FETCH, DESCRIBE_GROUPS, FIND_COORDINATOR = 19, 1, 2, 9, 15, 10
# Errors that pass by themselves: no leader yet, coordinator loading or not available or elsewhere.
PASSING = {5, 14, 15, 16}
PATIENCE_S = 30


class WireError(Exception):
    """The broker answered with an error."""


def _string(text):
    return struct.pack(">h", len(text.encode())) + text.encode()


def _array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


class _Response:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, kind):
        (value,) = struct.unpack_from(">" + kind, self.data, self.at)
        self.at += struct.calcsize(">" + kind)
        return value

    def string(self):
        return self._run(self.take("h"))

    def bytes(self):
        return self._run(self.take("i"))

    def _run(self, length):
        run = self.data[self.at : self.at + max(length, 0)]
        self.at += len(run)
        return run

    def array(self, item):
        return [item() for _ in range(self.take("i"))]


def _request(address, key, version, body):
    host, port = address.rsplit(":", 1)
    head = struct.pack(">hhi", key, version, 1) + _string("harness")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        stream = connection.makefile("rb")
        size = stream.read(4)
        if len(size) < 4:
            raise WireError(f"the broker closed the connection on request {key} version {version}")
        data = stream.read(struct.unpack(">i", size)[0])
    return _Response(data[4:])


def _patiently(ask):
    """Calls until there is no passing error; `ask` returns (error, answer)."""
    end = time.monotonic() + PATIENCE_S
    while True:
        error, answer = ask()
        if error == 0:
            return answer
        if error not in PASSING or time.monotonic() > end:
            raise WireError(f"error {error}")
        time.sleep(0.2)


def create_topic(address, topic, partitions, configs=()):
    entries = [_string(name) + _string(value) for name, value in configs]
    wanted = _string(topic) + struct.pack(">ih", partitions, 1) + _array([]) + _array(entries)
    response = _request(address, CREATE_TOPICS, 2, _array([wanted]) + struct.pack(">i?", 30_000, False))
    response.take("i")
    for name, error, message in response.array(lambda: (response.string(), response.take("h"), response.string())):
        if error != 0:
            raise WireError(f"creating {name.decode()}: error {error} {message.decode()}")


def _by_partition(response, partition):
    topics = response.array(lambda: (response.string(), response.array(partition)))
    (_, partitions) = topics[0]
    error = next((error for _, error, _ in partitions if error != 0), 0)
    return error, [offset for _, _, offset in sorted(partitions)]


def ends(address, topic, partitions):
    """The offset behind the last record of each partition."""

    def ask():
        wanted = _array([struct.pack(">iq", partition, -1) for partition in range(partitions)])
        body = struct.pack(">i", -1) + _array([_string(topic) + wanted])
        response = _request(address, LIST_OFFSETS, 1, body)

        def partition():
            index, error, _ = response.take("i"), response.take("h"), response.take("q")
            return index, error, response.take("q")

        return _by_partition(response, partition)

    return _patiently(ask)


def committed(address, group, topic, partitions):
    """The offset that a group has committed in each partition; -1 is none."""

    def ask():
        wanted = _array([struct.pack(">i", partition) for partition in range(partitions)])
        response = _request(address, OFFSET_FETCH, 1, _string(group) + _array([_string(topic) + wanted]))

        def partition():
            index, offset, _ = response.take("i"), response.take("q"), response.string()
            return index, response.take("h"), offset

        return _by_partition(response, partition)

    return _patiently(ask)


def fetch_request(topic, partition, offset):
    """The bytes of a fetch, version 4, of as much as there is: for those who do not mean to read the answer."""
    wanted = _string(topic) + _array([struct.pack(">iqi", partition, offset, 1 << 20)])
    body = struct.pack(">iiiib", -1, 0, 1, 1 << 20, 0) + _array([wanted])
    message = struct.pack(">hhi", FETCH, 4, 1) + _string("harness") + body
    return struct.pack(">i", len(message)) + message


def members(address, group):
    """A group's state, and how many of its members have something assigned."""
    response = _request(address, DESCRIBE_GROUPS, 0, _array([_string(group)]))

    def described():
        error, _, state = response.take("h"), response.string(), response.string()
        response.string(), response.string()

        def member():
            response.string(), response.string(), response.string(), response.bytes()
            return len(response.bytes()) > 0

        return error, state.decode(), sum(response.array(member))

    ((error, state, count),) = response.array(described)
    return ("", 0) if error in PASSING else (state, count)
