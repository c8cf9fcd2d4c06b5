"""Everything that is known about one message or one alias, in the order of time, for a person to read."""

import datetime
import json


def short(line, leave_out=("t", "ev", "progress")):
    return " ".join(f"{key}={json.dumps(value)}" for key, value in line.items() if key not in leave_out)


def node_lines(folder, began):
    """The nodes' log lines with their moments on the run's clock. `began` is the run's start: calendar time, clock."""
    for log in sorted(folder.glob("node*/log")):
        for text in log.read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
                when = datetime.datetime.fromisoformat(line["timestamp"]).timestamp()
            except (ValueError, KeyError, TypeError):
                continue
            yield when - began[0] + began[1], log.parent.name, text


def tell(evidence, folder, began, message, address):
    """Lines of the story of `message`, or of all messages to `address`."""
    found = []

    def add(at, who, text):
        found.append((at, f"{at - began[1]:10.4f}  {who:9} {text}"))

    messages = {message} if message else {m for m, to in evidence.ended if to == address}
    attempts = [attempt for m in messages for attempt in evidence.by_message.get(m, ())]
    for attempt in attempts:
        add(attempt["began"], "sender", f"{attempt['a']} begins, node {attempt['node']}, to {', '.join(attempt['to'])}")
        add(attempt["t"], "sender", short(attempt, ("t", "ev", "m", "to", "node", "began")))
    for (m, to), line in evidence.ended.items():
        if m in messages:
            add(line["t"], "sender", f"{m} to {to}: {line['how']}")
    ids = {attempt["verdict"].rpartition("id ")[2] for attempt in attempts if (attempt["verdict"] or "").startswith("250")}
    connections = set()
    for line in evidence.sink:
        if line.get("m") in messages:
            add(line["t"], "next hop", f"{line['ev']} {short(line)}")
            connection = evidence.connection_of(line)
            connections.add(connection["n"] if connection else None)
    for attempt in attempts:
        for seen in evidence.seen.get(attempt["a"], ()):
            add(seen["t"], "proxy", f"{seen['a']} was sent on connection {seen['n']}")
            connections.add(seen["n"])
    if not found:
        return []
    first, last = min(found)[0] - 0.5, max(found)[0] + 1
    for number in connections - {None}:
        connection = evidence.connections.get(number)
        if connection:
            add(connection["t"], "proxy", f"connection {short(connection)}")
    for line in evidence.stage:
        if first <= line["t"] <= last and "who" in line:
            add(line["t"], line["who"], line["ev"])
    for line in evidence.proxy:
        if line["ev"] == "command" and first <= line["t"] <= last:
            add(line["t"], "proxy", f"told: {short(line)}")
    for at, node, text in node_lines(folder, began):
        if any(one and one in text for one in ids) or (first <= at <= last and '"level":"INFO"' not in text):
            add(at, node, text)
    return [text for _, text in sorted(found)]
