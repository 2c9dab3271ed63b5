"""The loads of both protocols as one."""

from harness.log_load import LogLoad
from harness.queue_load import QueueLoad, low_port


class Loads:
    def __init__(self, loads):
        self.loads = loads

    def __bool__(self):
        return bool(self.loads)

    def start(self):
        for load in self.loads:
            load.start()

    def look(self, when=""):
        for load in self.loads:
            load.look(when)

    def killed(self):
        for load in self.loads:
            load.killed()

    def latencies(self):
        """Milliseconds of each confirm since the last look."""
        return [latency for load in self.loads for latency in load.latencies()]

    def finish(self):
        return [(load.name, load.finish()) for load in self.loads]

    def abandon(self):
        for load in self.loads:
            load.abandon()


def both(broker, folder, script, per_second=2_000, messages_per_second=None):
    """What can be had here; says what cannot. The broker gets addresses that it keeps over restarts."""
    broker.address, broker.amqp = f"127.0.0.1:{low_port()}", f"127.0.0.1:{low_port()}"
    loads = []
    for load in [LogLoad(broker, folder, per_second), QueueLoad(broker, messages_per_second)]:
        if reason := load.install():
            print(f"skipped {script}, {load.name}: {reason}")
        else:
            loads.append(load)
    return Loads(loads)
