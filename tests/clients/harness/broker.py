"""A broker to test against: Millstream, Apache Kafka, or one that is already there."""

import os
import pathlib
import signal
import socket
import subprocess
import time

CLIENTS = pathlib.Path(__file__).resolve().parent.parent
START_S = 60


class Broker:
    """A broker that runs somewhere. It is not ours, so it is neither started nor stopped."""

    def __init__(self, address):
        self.address = address

    def start(self):
        pass

    def stop(self):
        pass


class Process(Broker):
    """A broker of our own, in a folder of its own."""

    def __init__(self, folder):
        super().__init__(None)
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None

    def _spawn(self, command):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In good order; a broker that does not end well is a failure."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = "none"
        self.process = None
        if code not in (0, 128 + signal.SIGTERM):
            raise RuntimeError(f"the broker ended with code {code}; see {self.folder}/log")

    def rss_mib(self):
        """Resident memory."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _failed(self):
        self.kill()
        raise RuntimeError(f"the broker does not start:\n{(self.folder / 'log').read_text()}")


class Millstream(Process):
    def __init__(self, binary, folder, *arguments):
        super().__init__(folder)
        self.command = [str(pathlib.Path(binary).resolve()), "--data", str(self.folder / "data"), *arguments]
        self.amqp = self.http = None

    def start(self):
        """Where clients reach it stays the same over restarts."""
        self._spawn([*self.command, "--http", "127.0.0.1:0", "--amqp", self.amqp or "127.0.0.1:0", "--kafka", self.address or "127.0.0.1:0"])
        for line in self.process.stdout:
            if line.startswith(b"ready kafka="):
                addresses = dict(part.split("=", 1) for part in line.decode().split()[1:])
                self.address, self.amqp, self.http = addresses["kafka"], addresses["amqp"], addresses["http"]
                return
        self._failed()


class Kafka(Process):
    def __init__(self, folder, *properties):
        super().__init__(folder)
        self.ports = [str(free_port()), str(free_port())]
        self.properties = properties

    def start(self):
        self._spawn([CLIENTS / "kafka" / "server", str(self.folder), *self.ports, *self.properties])
        self.address = f"127.0.0.1:{self.ports[0]}"
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", int(self.ports[0])), timeout=1).close()
                return
            except OSError:
                time.sleep(0.2)
        self._failed()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def add_arguments(parser):
    """The ways to name a broker on a script's command line."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--broker", metavar="BINARY", help="start this millstream, on a free port and in a temporary folder")
    which.add_argument("--kafka", action="store_true", help="start Apache Kafka instead, to see whether the script is right")
    which.add_argument("--address", metavar="HOST:PORT", help="use the broker that runs there")


def chosen(options, folder):
    if options.address:
        return Broker(options.address)
    if options.broker:
        return Millstream(options.broker, os.path.join(folder, "broker"))
    return Kafka(os.path.join(folder, "broker"))
