"""Histories of real clients, and whether a log or a queue could have given them, in the manner of Jepsen.

An operation is a dict: `what` it is, `who` did it, when it was asked (`start`) and when it was answered (`end`), both in nanoseconds of
one clock, and how it went: `ok`, `failed` (it has surely not happened) or `unknown` (it may have happened, until the end of time). What
happened must fit one order in which every operation takes effect somewhere between its start and its end."""

import collections
import math

FOREVER = math.inf


def check_log(history, final):
    """`append` (partition, value; offset if ok) and `read` (partition, offset, value), against what can be read in the end: a list
    of values by partition. Nothing is sent twice by these clients, so no value may be there twice."""
    wrong = []
    appends = {op["value"]: op for op in history if op["what"] == "append"}
    places = {}
    for partition, values in final.items():
        for offset, value in enumerate(values):
            if value in places:
                wrong.append(f"{value} is stored twice: at {places[value]} and {(partition, offset)}")
            places[value] = (partition, offset)
            op = appends.get(value)
            if op is None or op["partition"] != partition:
                wrong.append(f"{value} in partition {partition} was never sent there")
            elif op["how"] == "failed":
                wrong.append(f"{value} was refused, and is at {(partition, offset)}")
    for value, op in appends.items():
        if op["how"] == "ok" and places.get(value) != (op["partition"], op["offset"]):
            wrong.append(f"{value} was acknowledged at {(op['partition'], op['offset'])}, and is at {places.get(value)}")
    for partition, values in final.items():
        stored = [appends[value] for value in values if value in appends]
        wrong += behind(stored, f"partition {partition}")
    readers = {}
    for op in history:
        if op["what"] != "read":
            continue
        partition, offset, value = op["partition"], op["offset"], op["value"]
        if places.get(value) != (partition, offset):
            wrong.append(f"{op['who']} read {value} at {(partition, offset)}, and it is at {places.get(value)}")
        elif value in appends and appends[value]["start"] > op["end"]:
            wrong.append(f"{op['who']} read {value} before it was sent")
        expected = readers.get((op["who"], partition), 0)
        if offset != expected:
            wrong.append(f"{op['who']} read offset {offset} of partition {partition} where {expected} was due")
        readers[op["who"], partition] = offset + 1
    return wrong


def behind(ops, where):
    """In this order, did any take effect before one that had ended when it was asked?"""
    wrong, latest, which = [], -1, None
    for op in ops:
        if op["end"] < latest:
            wrong.append(f"{where}: {op['value']} stands behind {which}, which was sent after it had been answered")
        if op["start"] > latest:
            latest, which = op["start"], op["value"]
    return wrong


def check_queue(history, left, cuts, forgotten_ns):
    """`enqueue` (value), `deliver` (value, redelivered, in the order of each consumer) and `settle` (value), against what was `left` in the end.
    What was settled less than `forgotten_ns` before a moment of `cuts`, or on a connection that it cut, may come back."""
    wrong = []
    enqueued = {op["value"]: op for op in history if op["what"] == "enqueue"}
    by_consumer = collections.defaultdict(list)
    settled, delivered = {}, set()
    for op in sorted(history, key=lambda op: op["start"]):
        if op["what"] == "settle":
            settled[op["value"]] = op["start"]
        if op["what"] != "deliver":
            continue
        value, at = op["value"], op["start"]
        sent = enqueued.get(value)
        if sent is None or sent["how"] == "failed" or sent["start"] > at:
            wrong.append(f"{op['who']} was given {value}, which nobody had sent")
            continue
        if value in delivered and not op["redelivered"]:
            wrong.append(f"{value} does not say that it has come before")
        if value in settled:
            before = settled[value]
            if not any(before - forgotten_ns <= cut <= before + forgotten_ns for cut in cuts):
                wrong.append(f"{value} was settled, and is back")
        delivered.add(value)
        if not op["redelivered"]:
            by_consumer[op["who"]].append(sent)
    for consumer, ops in by_consumer.items():
        wrong += behind(ops, consumer)
    counts = collections.Counter(left)
    for value, count in counts.items():
        if value not in enqueued or enqueued[value]["how"] == "failed":
            wrong.append(f"{value} is left, and nobody had sent it")
        if count > 1:
            wrong.append(f"{value} is left {count} times")
    for value, op in enqueued.items():
        if op["how"] == "ok" and value not in counts and value not in settled:
            wrong.append(f"{value} was confirmed, and is neither settled nor left")
    return wrong
