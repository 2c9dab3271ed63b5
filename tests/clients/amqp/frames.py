"""A connection that speaks frames, with pika's codec and nothing else of it: what is sent and what comes are seen one by one."""

import re
import socket
import time

from pika import amqp_object, frame, spec

# What differs from run to run.
MADE_UP = [
    (re.compile(r"amq\.gen-[\w-]{22}"), "amq.gen-*"),
    (re.compile(r"amq\.ctag-[\w-]{22}"), "amq.ctag-*"),
    (re.compile(r"amq\.rabbitmq\.reply-to\.[^\s'\",]+"), "amq.rabbitmq.reply-to.*"),
    (re.compile(r"datetime\.datetime\([^)]*\)"), "TIME"),
]
# How long nothing has to come for a reply to be complete.
QUIET_S = 0.25


class Peer:
    """One connection. `say` sends, `hear` gives what came as lines of text."""

    def __init__(self, address, user="guest", password="guest", vhost="/", frame_max=131072, heartbeat=0, open_it=True):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.bytes = b""
        self.closed = False
        if not open_it:
            return
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.hear()
        self.say(0, start_ok(user, password))
        self.hear()
        self.say(0, spec.Connection.TuneOk(channel_max=2047, frame_max=frame_max, heartbeat=heartbeat))
        self.say(0, spec.Connection.Open(virtual_host=vhost))
        self.opened = self.hear()

    def raw(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def say(self, channel, *things):
        """Sends methods; a string or bytes behind a publish is its body, properties may stand before it."""
        data = b""
        for thing in things:
            if isinstance(thing, (bytes, str)):
                thing = (spec.BasicProperties(), thing)
            if isinstance(thing, tuple):
                properties, body = thing
                body = body.encode() if isinstance(body, str) else body
                data += frame.Header(channel, len(body), properties).marshal()
                for start in range(0, len(body), 4000):
                    data += frame.Body(channel, body[start : start + 4000]).marshal()
            else:
                data += frame.Method(channel, thing).marshal()
        self.raw(data)

    def hear(self, quiet_s=QUIET_S, least=0):
        """Everything that comes until it has been quiet for a while, but so many lines at least."""
        lines = []
        self.socket.settimeout(quiet_s)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            while True:
                used, came = frame.decode_frame(self.bytes)
                if not came:
                    break
                self.bytes = self.bytes[used:]
                lines.append(shown(came))
            if self.closed:
                break
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                if len(lines) < least:
                    continue
                break
            except OSError:
                more = b""
            if not more:
                self.closed = True
                lines.append("closed")
            self.bytes += more
        return lines

    def ask(self, channel, *things, quiet_s=QUIET_S, least=0):
        self.say(channel, *things)
        return self.hear(quiet_s, least)

    def end(self):
        self.socket.close()


def start_ok(user, password, mechanism="PLAIN", response=None):
    capabilities = {"consumer_cancel_notify": True, "authentication_failure_close": True, "basic.nack": True}
    if response is None:
        response = f"\0{user}\0{password}"
    return spec.Connection.StartOk(
        client_properties={"capabilities": capabilities}, mechanism=mechanism, response=response, locale="en_US"
    )


def shown(came):
    if isinstance(came, frame.Method):
        fields = {name: value for name, value in vars(came.method).items()}
        if isinstance(came.method, spec.Connection.Start):
            fields = {"mechanisms": fields["mechanisms"], "locales": fields["locales"]}
        fields.pop("cluster_id", None)
        fields.pop("known_hosts", None)
        text = f"{came.channel_number} {came.method.NAME} {fields}"
    elif isinstance(came, frame.Header):
        properties = {name: value for name, value in vars(came.properties).items() if value is not None}
        text = f"{came.channel_number} header {came.body_size} {properties}"
    elif isinstance(came, frame.Body):
        text = f"{came.channel_number} body {came.fragment!r}"
    elif isinstance(came, frame.ProtocolHeader):
        text = f"protocol header {came.major} {came.minor} {came.revision}"
    else:
        text = type(came).__name__
    for pattern, name in MADE_UP:
        text = pattern.sub(name, text)
    return text


assert amqp_object
