"""What the journals of a run prove: which attempt had which fate, and why.

Nothing here is assumed. A verdict reached tempalias if the proxy forwarded its last octet; it was lost if not, and then
something recorded must have caused that. A node had the time to settle what it had heard if it ran for long enough
afterwards."""

import bisect
from collections import defaultdict

from journal import read

# How long a node that runs, and reaches its store, may take to make what it heard durable.
SETTLES_IN = 2
# With Redis: settling that failed is tried again after at most this pause.
STORE_PAUSE = 7
# With Redis: a node that could not renew its lease for so long may have been taken for dead.
LEASE = 10
FOR_EVER = float("inf")


class Timeline:
    """When one process was not running: killed (from, to up again) or stopped (from, to)."""

    def __init__(self, lines, who):
        self.kills, self.stops, self.absent = [], [], []
        stopped = down = None
        for line in lines:
            if line.get("who") != who:
                continue
            if line["ev"] == "killing":
                self.kills.append(line["t"])
                down = line["t"]
            elif line["ev"] == "stopping" and stopped is None:
                stopped = line["t"]
            if line["ev"] in ("killed", "going on") and stopped is not None:
                self.stops.append((stopped, line["t"]))
                stopped = None
            if line["ev"] == "up" and down is not None:
                self.absent.append((down, line["t"]))
                down = None
        if stopped is not None:
            self.stops.append((stopped, FOR_EVER))
        if down is not None:
            self.absent.append((down, FOR_EVER))

    def killed(self, begin, end):
        """The first kill between these moments."""
        place = bisect.bisect_left(self.kills, begin)
        return self.kills[place] if place < len(self.kills) and self.kills[place] <= end else None

    def touched(self, begin, end):
        """Whether it was killed or stopped at some time between these moments."""
        return self.killed(begin, end) is not None or any(
            since <= end and until >= begin for since, until in self.stops + self.absent)


def after_running(pauses, begin, seconds):
    """When this much time has passed since `begin`, pauses (sorted, apart) not counted."""
    at, left = begin, seconds
    for since, until in pauses:
        if until <= at:
            continue
        if since >= at + left:
            break
        left -= max(0, since - at)
        at = until
    return at + left


def merged(spans):
    out = []
    for since, until in sorted(spans):
        if out and since <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], until))
        else:
            out.append((since, until))
    return out


class Evidence:
    def __init__(self, folder, dot_timeout):
        self.dot_timeout = dot_timeout
        self.stage = read(folder / "stage.jsonl")
        self.sink = read(folder / "sink.jsonl")
        self.proxy = read(folder / "proxy.jsonl")
        self.senders = read(folder / "senders.jsonl")
        self.sink_life = Timeline(self.stage, "sink")
        names = sorted({line["who"] for line in self.stage if line.get("who", "").startswith("node")})
        self.nodes = [Timeline(self.stage, name) for name in names]
        self.with_redis = any(line.get("who") == "redis" for line in self.stage)
        self.unreachable = [self.store_troubles(number) for number in range(len(self.nodes))]
        self.connections = {line["n"]: line for line in self.proxy if line["ev"] == "connection"}
        self.by_port = defaultdict(list)
        for connection in self.connections.values():
            # A port may have been one to the store before.
            if connection["route"].startswith("hop"):
                self.by_port[connection["port"]].append(connection)
        self.seen = defaultdict(list)
        for line in self.proxy:
            if line["ev"] == "seen":
                self.seen[line["a"]].append(line)
        self.attempts = [line for line in self.senders if line["ev"] == "attempt"]
        self.by_message, self.by_id = defaultdict(list), {}
        for attempt in self.attempts:
            self.by_message[attempt["m"]].append(attempt)
            self.by_id[attempt["a"]] = attempt
        self.aliases = {line["address"]: line for line in self.senders if line["ev"] == "alias"}
        self.by_target = {alias["target"]: alias for alias in self.aliases.values()}
        self.ended = {(line["m"], line["to"]): line for line in self.senders if line["ev"] == "ended"}
        self.calm = next((line["t"] for line in self.senders if line["ev"] == "calm"), FOR_EVER)
        self.verdicts = defaultdict(list)
        for line in self.sink:
            if line["ev"] in ("accepted", "refused") and line["step"] == "dot" and line.get("a"):
                self.verdicts[line["a"]].append(line)

    def store_troubles(self, number):
        """When this node did not run, or could not count on its store."""
        spans = [(since, until) for since, until in self.nodes[number].stops]
        if not self.with_redis:
            return merged(spans)
        redis, route = Timeline(self.stage, "redis"), f"store{number}"
        spans += redis.stops + redis.absent
        for line in self.proxy:
            if line["ev"] == "command" and line["route"] in (route, None) and line["do"] in ("refuse", "stall", "cut"):
                spans.append((line["t"], line["t"] + line["seconds"]))
            if line["ev"] == "connection" and line["route"] == route and line["faults"]:
                spans.append((line["faults"][0][0], max(at for at, _ in line["faults"]) + 1))
        return merged([(since, until + STORE_PAUSE) for since, until in spans])

    def connection_of(self, line):
        """The proxy's connection on which the next hop said this: the last one from that port until then."""
        before = [one for one in self.by_port[line["conn"]] if one["opened"] <= line["t"]]
        return max(before, key=lambda one: one["opened"], default=None)

    def node_of(self, connection):
        return int(connection["route"][3:])

    def reached(self, line):
        """When the last octet of this answer was handed to the node; None: never, or behind its back."""
        connection = self.connection_of(line)
        if connection is None or connection["s2c"] < line["end"]:
            return None
        at = next(at for at, total in connection["progress"] if total >= line["end"])
        return at if connection["left"] is None or at < connection["left"] else None

    def paused(self, node, begin, end):
        """For how long in between it did not run, or had no store."""
        return sum(max(0, min(until, end) - max(since, begin)) for since, until in self.unreachable[node])

    def settled_by(self, node, moment):
        """When a node that heard something at this moment has surely made it durable, if it lives."""
        return after_running(self.unreachable[node], moment, SETTLES_IN)

    def why_unsettled(self, line):
        """The recorded reason why this verdict of the next hop may not stand in the store; None: there is none."""
        connection = self.connection_of(line)
        if connection is None:
            return None
        node = self.node_of(connection)
        at = self.reached(line)
        if at is None:
            return self.why_lost(line, connection, node)
        begun, by = self.begun(line), self.settled_by(node, at)
        # What was handed to the kernel for a process that is dead by then was not heard.
        if self.nodes[node].killed(begun, at) is not None:
            return "the node was killed before it heard"
        if self.nodes[node].killed(at, by) is not None:
            return "the node was killed before it could settle"
        if len(self.nodes) > 1 and by - at > LEASE:
            return "the node could not renew its lease before it could settle"
        if self.nodes[node].touched(begun, at) and at - begun > self.dot_timeout - 0.5:
            return "the node was stopped beyond its deadline"
        return None

    def begun(self, line):
        """When the attempt's claim may have been made: not before the sender's dot."""
        attempt = self.by_id.get(line.get("a"))
        return attempt["dot"] if attempt and attempt["dot"] else line["t"]

    def why_lost(self, line, connection, node):
        until = max(connection["t"], line["t"])
        if connection["faults"]:
            return "the proxy broke the connection (" + connection["faults"][-1][1].split(" at ")[0] + ")"
        if self.nodes[node].killed(self.begun(line), until + 1) is not None:
            return "the node was killed before it heard"
        if self.sink_life.killed(line["t"] - 0.01, until + 1) is not None:
            return "the next hop was killed before it said so"
        if line["t"] - self.begun(line) > self.dot_timeout - 0.5:
            return "the next hop answered after the deadline"
        if self.held_back(connection["route"], line["t"]) > self.begun(line) + self.dot_timeout - 0.5:
            return "the proxy held its answers back beyond the deadline"
        return None

    def held_back(self, route, moment):
        """Until when the proxy, told so, handed no answer on; before the moment: it did then."""
        return max((line["t"] + line["seconds"] for line in self.proxy
                    if line["ev"] == "command" and line["do"] == "stall" and line["direction"] == "s2c"
                    and line["route"] in (route, None) and line["t"] <= moment), default=moment)

    def doubt(self, attempt):
        """Why this attempt may have left a claim in doubt; None: it cannot have."""
        if not attempt["dot"]:
            return None
        node = attempt["node"]
        if attempt["verdict"]:
            # A verdict that the sender read was settled, or (250) is settled at once.
            end = self.settled_by(node, attempt["t"])
        else:
            end = self.settled_by(node, attempt["dot"] + self.dot_timeout + 1)
        if self.nodes[node].killed(attempt["dot"], end) is not None:
            return "the node was killed"
        if self.with_redis and self.paused(node, attempt["dot"], end) > LEASE:
            return "the node could not renew its lease"
        for line in self.verdicts.get(attempt["a"], ()):
            why = self.why_unsettled(line)
            if why or self.reached(line) is not None:
                return why
        for seen in self.seen.get(attempt["a"], ()):
            connection = self.connections.get(seen["n"])
            if connection is None:
                return "the proxy does not know its end"
            if connection["faults"]:
                return "the proxy broke the connection"
            if self.sink_life.touched(attempt["dot"], connection["t"] + 0.5):
                return "the next hop was killed or stopped"
            if connection["t"] - attempt["dot"] > self.dot_timeout - 0.5:
                return "no answer before the deadline"
        return None
