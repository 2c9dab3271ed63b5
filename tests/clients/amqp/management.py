"""What is said to a broker's management API, to be compared. Each scenario is given a way to ask, and yields what came back."""

import base64
import json
import time
import urllib.error
import urllib.parse
import urllib.request

# What tells of the moment or of the implementation, and not of what was done.
VOLATILE = {
    "backing_queue_status", "garbage_collection", "memory", "reductions", "reductions_details", "idle_since", "head_message_timestamp",
    "message_stats", "recoverable_slaves", "slave_nodes", "synchronised_slave_nodes", "cluster_state", "node",
    "message_bytes_paged_out", "messages_paged_out", "messages_ram", "messages_ready_ram", "messages_unacknowledged_ram", "message_bytes_ram",
    "message_bytes_persistent", "messages_details", "messages_ready_details", "messages_unacknowledged_details", "consumer_capacity",
    "consumer_utilisation", "single_active_consumer_tag", "payload_bytes", "password_hash", "recv_oct", "recv_oct_details", "send_oct",
    "send_oct_details", "incoming", "outgoing", "deliveries", "server_named", "messages_dead_lettering",
    "messages_persistent", "protocol_version", "storage_version",
}


def quoted(name):
    return urllib.parse.quote(name, safe="")


class Http:
    """One user's requests to one broker."""

    def __init__(self, address, user="guest"):
        self.address, self.user = address, user

    def as_user(self, user):
        return Http(self.address, user)

    def ask(self, method, path, body=None):
        url = f"http://{self.address}/api/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, method=method, headers={"Content-Type": "application/json"})
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{self.user}:{self.user}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def say(self, method, path, body=None):
        """The answer as lines: the code, and what JSON came with it, a line for each field."""
        status, content = self.ask(method, path, body)
        said = f"{method} {path}"
        try:
            value = json.loads(content) if content else None
        except ValueError:
            value = content.decode(errors="replace")
        return [f"{said}: {status}", *lines("", value)]

    def settles(self, path, field, wanted):
        """Statistics of RabbitMQ's come late: waits until a field is as wanted, and tells what it is."""
        end = time.monotonic() + 15
        while True:
            found = json.loads(self.ask("GET", path)[1]).get(field)
            if found == wanted or time.monotonic() > end:
                return [f"{path}: {field} = {found!r}"]
            time.sleep(0.2)


def lines(name, value):
    if isinstance(value, dict):
        fields = sorted(field for field in value if field not in VOLATILE)
        return [line for field in fields for line in lines(f"{name}.{field}" if name else field, value[field])] or [f"{name} = {{}}"]
    if isinstance(value, list):
        texts = sorted(json.dumps({k: v for k, v in one.items() if k not in VOLATILE} if isinstance(one, dict) else one, sort_keys=True) for one in value)
        return [f"{name}[] {text}" for text in texts] or [f"{name} = []"]
    return [] if value is None and not name else [f"{name} = {json.dumps(value)}"]


def vhost(http, name):
    """A fresh vhost in which guest may do everything."""
    http.ask("DELETE", f"vhosts/{name}")
    http.ask("PUT", f"vhosts/{name}", {})
    http.ask("PUT", f"permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
    return name


def objects(http):
    v = vhost(http, "cmp-objects")
    yield http.say("PUT", f"exchanges/{v}/x", {"type": "topic", "durable": True})
    yield http.say("PUT", f"exchanges/{v}/x", {"type": "topic", "durable": True})
    yield http.say("PUT", f"exchanges/{v}/x", {"type": "fanout", "durable": True})
    yield http.say("PUT", f"exchanges/{v}/y", {})
    yield http.say("PUT", f"exchanges/{v}/y", {"type": "none"})
    yield http.say("PUT", f"exchanges/{v}/amq.mine", {"type": "direct"})
    yield http.say("PUT", f"exchanges/{v}/y", {"type": "direct", "auto_delete": True, "internal": True, "arguments": {"alternate-exchange": "x"}})
    yield http.say("GET", f"exchanges/{v}/y")
    yield http.say("GET", f"exchanges/{v}/none")
    yield http.say("GET", f"exchanges/nowhere/x")
    yield http.say("PUT", f"queues/{v}/q", {"durable": True, "arguments": {"x-max-length": 10, "x-overflow": "reject-publish"}})
    yield http.say("PUT", f"queues/{v}/q", {"durable": True, "arguments": {"x-max-length": 10, "x-overflow": "reject-publish"}})
    yield http.say("PUT", f"queues/{v}/q", {"durable": True})
    yield http.say("PUT", f"queues/{v}/q", {"durable": "yes"})
    yield http.say("PUT", f"queues/{v}/w", {"arguments": {"x-message-ttl": "soon"}})
    yield http.say("PUT", f"queues/{v}/t", {"auto_delete": True})
    yield http.say("GET", f"queues/{v}/q")
    yield http.say("GET", f"queues/{v}/none")
    yield http.say("POST", f"bindings/{v}/e/x/q/q", {"routing_key": "a.#", "arguments": {}})
    yield http.say("POST", f"bindings/{v}/e/x/q/q", {"routing_key": "b/c", "arguments": {"k": 1}})
    yield http.say("POST", f"bindings/{v}/e/x/e/y", {"routing_key": "to.y"})
    yield http.say("POST", f"bindings/{v}/e/x/q/none", {"routing_key": "k"})
    yield http.say("GET", f"bindings/{v}")
    yield http.say("GET", f"queues/{v}/q/bindings")
    yield http.say("GET", f"exchanges/{v}/x/bindings/source")
    yield http.say("GET", f"exchanges/{v}/y/bindings/destination")
    yield http.say("GET", f"bindings/{v}/e/x/q/q/a.%23")
    yield http.say("DELETE", f"bindings/{v}/e/x/q/q/a.%23")
    yield http.say("DELETE", f"bindings/{v}/e/x/q/q/a.%23")
    message = {"properties": {"delivery_mode": 2, "headers": {"h": 1}}, "routing_key": "b/c", "payload": "hello", "payload_encoding": "string"}
    yield http.say("POST", f"exchanges/{v}/x/publish", message)
    yield http.say("POST", f"exchanges/{v}/x/publish", {**message, "routing_key": "nobody"})
    yield http.say("POST", f"exchanges/{v}/x/publish", {**message, "payload": "aGk=", "payload_encoding": "base64"})
    yield http.say("POST", f"exchanges/{v}/none/publish", message)
    yield http.say("POST", f"exchanges/{v}/x/publish", {"routing_key": "b/c"})
    yield http.settles(f"queues/{v}/q", "messages", 2)
    get = {"count": 5, "ackmode": "ack_requeue_true", "encoding": "auto"}
    yield http.say("POST", f"queues/{v}/q/get", get)
    yield http.say("POST", f"queues/{v}/q/get", {**get, "ackmode": "ack_requeue_false", "count": 1, "truncate": 2})
    yield http.say("POST", f"queues/{v}/q/get", {"count": 1})
    yield http.say("POST", f"queues/{v}/none/get", get)
    yield http.say("DELETE", f"queues/{v}/q/contents")
    yield http.settles(f"queues/{v}/q", "messages", 0)
    yield http.say("DELETE", f"exchanges/{v}/x?if-unused=true")
    yield http.say("DELETE", f"exchanges/{v}/x")
    yield http.say("DELETE", f"exchanges/{v}/x")
    yield http.say("DELETE", f"exchanges/{v}/amq.direct")
    yield http.say("DELETE", f"queues/{v}/q?if-empty=true")
    yield http.say("DELETE", f"queues/{v}/q")
    yield http.say("GET", f"definitions/{v}")
    yield http.say("DELETE", f"vhosts/{v}")


def policies(http):
    v = vhost(http, "cmp-policies")
    put = lambda name, body: http.say("PUT", f"policies/{v}/{name}", body)
    yield put("p", {"pattern": "^p\\.", "definition": {"max-length": 2, "message-ttl": 60000}, "priority": 1, "apply-to": "queues"})
    yield put("low", {"pattern": ".*", "definition": {"max-length": 5}, "priority": 0, "apply-to": "queues"})
    yield put("bad", {"pattern": "(", "definition": {"max-length": 5}})
    yield put("bad", {"pattern": "x", "definition": {}})
    yield put("bad", {"pattern": "x", "definition": {"no-such-thing": 5}})
    yield put("bad", {"pattern": "x", "definition": {"max-length": "many"}})
    yield put("bad", {"pattern": "x", "definition": {"message-ttl": -1}})
    yield put("bad", {"pattern": "x", "definition": {"overflow": "burst"}})
    yield put("bad", {"pattern": "x", "definition": {"max-length": 1}, "apply-to": "things"})
    yield put("bad", {"pattern": "x", "definition": {"max-length": 1}, "priority": "high"})
    yield put("bad", {"definition": {"max-length": 1}})
    yield put("bad", {"pattern": "x"})
    yield http.say("GET", f"policies/{v}")
    yield http.say("GET", f"policies/{v}/p")
    yield http.say("GET", f"policies/{v}/none")
    operator = lambda name, body: http.say("PUT", f"operator-policies/{v}/{name}", body)
    yield operator("o", {"pattern": "^p\\.o", "definition": {"max-length": 1, "expires": 600000}, "priority": 0, "apply-to": "queues"})
    yield operator("bad", {"pattern": "x", "definition": {"dead-letter-exchange": "x"}, "apply-to": "queues"})
    yield http.say("GET", f"operator-policies/{v}")
    for name, arguments in [("p.one", {}), ("p.o", {}), ("p.arg", {"x-max-length": 1}), ("q", {}), ("p.o.arg", {"x-max-length": 3})]:
        http.ask("PUT", f"queues/{v}/{name}", {"durable": True, "arguments": arguments})
        for body in ["1", "2", "3", "4", "5", "6"]:
            message = {"properties": {}, "routing_key": name, "payload": body, "payload_encoding": "string"}
            http.ask("POST", f"exchanges/{v}/amq.default/publish", message)
        yield http.say("POST", f"queues/{v}/{name}/get", {"count": 9, "ackmode": "ack_requeue_true", "encoding": "auto"})
        status = json.loads(http.ask("GET", f"queues/{v}/{name}")[1])
        yield [f"{name}: {field} = {json.dumps(status.get(field), sort_keys=True)}" for field in ["policy", "operator_policy", "effective_policy_definition"]]
    # A change holds at once: the queue's head goes.
    yield put("p", {"pattern": "^p\\.", "definition": {"max-length": 1}, "priority": 1, "apply-to": "queues"})
    time.sleep(1)
    yield http.say("POST", f"queues/{v}/p.one/get", {"count": 9, "ackmode": "ack_requeue_true", "encoding": "auto"})
    yield http.say("DELETE", f"policies/{v}/p")
    yield http.say("DELETE", f"policies/{v}/p")
    time.sleep(1)
    yield [f"policy = {json.loads(http.ask('GET', f'queues/{v}/p.one')[1]).get('policy')!r}"]
    # Dead letters and alternates by policy.
    http.ask("PUT", f"queues/{v}/dead", {"durable": True})
    http.ask("PUT", f"queues/{v}/d.q", {"durable": True})
    definition = {"dead-letter-exchange": "", "dead-letter-routing-key": "dead", "message-ttl": 1}
    yield put("d", {"pattern": "^d\\.", "definition": definition, "priority": 5, "apply-to": "queues"})
    http.ask("PUT", f"exchanges/{v}/ae.x", {"type": "direct", "durable": True})
    http.ask("PUT", f"exchanges/{v}/other", {"type": "fanout", "durable": True})
    http.ask("POST", f"bindings/{v}/e/other/q/q", {"routing_key": ""})
    yield put("ae", {"pattern": "^ae\\.", "definition": {"alternate-exchange": "other"}, "apply-to": "exchanges"})
    time.sleep(1)
    for exchange, key in [("amq.default", "d.q"), ("ae.x", "nowhere")]:
        message = {"properties": {}, "routing_key": key, "payload": "moved", "payload_encoding": "string"}
        yield http.say("POST", f"exchanges/{v}/{exchange}/publish", message)
    time.sleep(1)
    yield http.say("POST", f"queues/{v}/dead/get", {"count": 9, "ackmode": "ack_requeue_false", "encoding": "auto"})
    yield http.say("GET", f"exchanges/{v}/ae.x")
    yield http.say("DELETE", f"vhosts/{v}")


def users(http):
    v = vhost(http, "cmp-users")
    for user, tags in [("cmp-none", ""), ("cmp-mgmt", "management"), ("cmp-pol", "policymaker"), ("cmp-mon", "monitoring")]:
        yield http.say("PUT", f"users/{user}", {"password": user, "tags": tags})
    yield http.say("PUT", "users/cmp-bad", {"tags": ""})
    yield http.say("PUT", "users/cmp-bad", {"password": "x"})
    yield http.say("PUT", "users/cmp-bad", {"password_hash": "nonsense", "tags": ""})
    yield http.say("GET", "users/cmp-mgmt")
    yield http.say("GET", "users/none")
    yield http.say("PUT", f"permissions/{v}/cmp-mgmt", {"configure": "^m", "write": ".*", "read": "^m"})
    yield http.say("PUT", f"permissions/{v}/cmp-mgmt", {"configure": "(", "write": ".*", "read": "^m"})
    yield http.say("PUT", f"permissions/{v}/cmp-mgmt", {"configure": "^m"})
    yield http.say("PUT", f"permissions/{v}/nobody", {"configure": "^m", "write": ".*", "read": "^m"})
    yield http.say("PUT", f"topic-permissions/{v}/cmp-mgmt", {"exchange": "amq.topic", "write": "^a", "read": ".*"})
    yield http.say("GET", f"topic-permissions/{v}/cmp-mgmt")
    yield http.say("GET", f"permissions/{v}/cmp-mgmt")
    yield http.say("GET", "users/cmp-mgmt/permissions")
    user = http.as_user("cmp-mgmt")
    yield user.say("GET", "whoami")
    yield user.say("PUT", f"queues/{v}/mine", {})
    yield user.say("PUT", f"queues/{v}/yours", {})
    yield user.say("PUT", f"queues/{v}/m.d", {"arguments": {"x-dead-letter-exchange": "m"}})
    yield user.say("PUT", f"exchanges/{v}/m.x", {"type": "topic", "arguments": {"alternate-exchange": "m.y"}})
    yield user.say("PUT", f"exchanges/{v}/x", {"type": "topic"})
    yield user.say("POST", f"bindings/{v}/e/m.x/q/mine", {"routing_key": "k"})
    yield user.say("POST", f"bindings/{v}/e/amq.direct/q/mine", {"routing_key": "k"})
    yield user.say("GET", "users")
    yield user.say("GET", "definitions")
    yield user.say("PUT", f"policies/{v}/p", {"pattern": "x", "definition": {"max-length": 1}})
    yield user.say("PUT", "vhosts/cmp-more", {})
    http.ask("PUT", f"permissions/{v}/cmp-mgmt", {"configure": ".*", "write": "^m", "read": "^m"})
    yield user.say("PUT", f"exchanges/{v}/a", {"type": "direct", "arguments": {"alternate-exchange": "m"}})
    yield user.say("PUT", f"exchanges/{v}/m.a", {"type": "direct", "arguments": {"alternate-exchange": "a"}})
    yield user.say("PUT", f"queues/{v}/a", {"arguments": {"x-dead-letter-exchange": "m"}})
    yield user.say("PUT", f"queues/{v}/m.a", {"arguments": {"x-dead-letter-exchange": "a"}})
    for name in ["cmp-none", "cmp-pol", "cmp-mon"]:
        other = http.as_user(name)
        yield other.say("GET", "whoami")
        yield other.say("GET", f"queues/{v}")
        http.ask("PUT", f"permissions/{v}/{name}", {"configure": "^m", "write": ".*", "read": "^m"})
        yield other.say("PUT", f"policies/{v}/p", {"pattern": "x", "definition": {"max-length": 1}})
        yield other.say("PUT", f"operator-policies/{v}/p", {"pattern": "x", "definition": {"max-length": 1}})
        yield other.say("GET", "users")
    yield http.say("DELETE", f"permissions/{v}/cmp-mgmt")
    yield user.say("GET", f"queues/{v}")
    yield http.say("POST", "users/bulk-delete", {"users": ["cmp-none", "cmp-pol"]})
    for name in ["cmp-mgmt", "cmp-mon", "cmp-mon"]:
        yield http.say("DELETE", f"users/{name}")
    yield http.say("DELETE", f"vhosts/{v}")
    yield http.say("DELETE", f"vhosts/{v}")


def dead_letters(http):
    """What messages say of themselves that a policy has made dead letters."""
    v = vhost(http, "cmp-dead")
    put = lambda name, body: http.ask("PUT", f"policies/{v}/{name}", {"apply-to": "queues", **body})
    publish = lambda key, payload, properties={}: http.ask("POST", f"exchanges/{v}/amq.default/publish", {"properties": properties, "routing_key": key, "payload": payload, "payload_encoding": "string"})
    get = lambda queue, how="ack_requeue_false": http.say("POST", f"queues/{v}/{queue}/get", {"count": 9, "ackmode": how, "encoding": "auto"})

    def untimed(said):
        """Deaths without the moment."""
        for line in said:
            if "] " in line and line.startswith("[]"):
                value = json.loads(line[3:])
                # Without properties RabbitMQ has an empty list.
                for death in (value.get("properties") or {}).get("headers", {}).get("x-death", []):
                    death["time"] = "?"
                line = "[] " + json.dumps(value, sort_keys=True)
            yield line

    http.ask("PUT", f"exchanges/{v}/dlx", {"type": "topic", "durable": True})
    for queue, key in [("dead", "k.#"), ("dead.two", "#")]:
        http.ask("PUT", f"queues/{v}/{queue}", {"durable": True})
        http.ask("POST", f"bindings/{v}/e/dlx/q/{queue}", {"routing_key": key})
    put("plain", {"pattern": "^plain", "definition": {"dead-letter-exchange": "dlx"}})
    put("keyed", {"pattern": "^keyed", "definition": {"dead-letter-exchange": "dlx", "dead-letter-routing-key": "k.policy", "max-length": 1}})
    put("ttl", {"pattern": "^ttl", "definition": {"dead-letter-exchange": "dlx", "dead-letter-routing-key": "k.ttl", "message-ttl": 50}})
    put("refuses", {"pattern": "^refuses", "definition": {"dead-letter-exchange": "dlx", "overflow": "reject-publish", "max-length": 1}})
    put("chain", {"pattern": "^dead.two$", "definition": {"dead-letter-exchange": "", "dead-letter-routing-key": "last"}})
    for queue, arguments in [("plain", {}), ("keyed", {}), ("keyed.arg", {"x-dead-letter-routing-key": "k.argument"}), ("ttl", {}), ("refuses", {}), ("last", {})]:
        http.ask("PUT", f"queues/{v}/{queue}", {"durable": True, "arguments": arguments})
    time.sleep(0.5)
    publish("plain", "rejected", {"headers": {"mine": 1}, "delivery_mode": 2, "expiration": "60000"})
    yield list(untimed(get("plain", "reject_requeue_false")))
    time.sleep(0.5)
    for queue in ["keyed", "keyed.arg"]:
        publish(queue, "goes")
        publish(queue, "stays")
    publish("ttl", "expires by itself", {"expiration": "20"})
    publish("ttl", "expires")
    yield http.say("POST", f"exchanges/{v}/amq.default/publish", {"properties": {}, "routing_key": "refuses", "payload": "first", "payload_encoding": "string"})
    publish("refuses", "refused")
    time.sleep(1)
    yield list(untimed(get("dead")))
    # A second death, of messages that have died before.
    yield list(untimed(get("dead.two", "reject_requeue_false")))
    time.sleep(0.5)
    yield list(untimed(get("last")))
    # Without its policy a queue drops what it rejects.
    http.ask("DELETE", f"policies/{v}/plain")
    time.sleep(0.5)
    publish("plain", "dropped")
    yield list(untimed(get("plain", "reject_requeue_false")))
    time.sleep(0.5)
    yield list(untimed(get("dead.two")))
    yield http.say("DELETE", f"vhosts/{v}")


def limits(http):
    v = vhost(http, "cmp-limits")
    http.ask("PUT", "users/cmp-limited", {"password": "cmp-limited", "tags": "management"})
    for path, body in [
        (f"vhost-limits/{v}/max-queues", {"value": 1}), (f"vhost-limits/{v}/max-connections", {"value": -1}),
        (f"vhost-limits/{v}/max-channels", {"value": 1}), (f"vhost-limits/{v}/max-queues", {"value": "x"}), (f"vhost-limits/{v}/max-queues", {}),
        ("vhost-limits/none/max-queues", {"value": 1}), ("user-limits/cmp-limited/max-channels", {"value": 2}),
        ("user-limits/cmp-limited/max-queues", {"value": 2}), ("user-limits/cmp-limited/max-channels", {"value": "x"}),
        ("user-limits/cmp-none/max-channels", {"value": 2}),
    ]:
        yield http.say("PUT", path, body)
    yield http.say("GET", f"vhost-limits/{v}")
    yield http.say("GET", "user-limits/cmp-limited")
    yield http.say("GET", "user-limits/none")
    yield http.say("GET", "users/cmp-limited")
    http.ask("PUT", f"queues/{v}/a", {})
    yield http.say("PUT", f"queues/{v}/b", {})
    yield http.say("PUT", f"queues/{v}/a", {})
    for path in [f"vhost-limits/{v}/max-queues", f"vhost-limits/{v}/max-queues", "user-limits/cmp-limited/max-channels"]:
        yield http.say("DELETE", path)
    yield http.say("GET", "user-limits/cmp-limited")
    http.ask("DELETE", "users/cmp-limited")
    yield http.say("DELETE", f"vhosts/{v}")


ALL = [objects, policies, users, dead_letters, limits]
