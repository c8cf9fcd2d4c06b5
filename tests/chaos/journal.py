"""What every process of a run writes down: one JSON object a line, stamped with the machine's monotonic clock, which all
processes share. A line is one write(2), so that a process killed with -9 leaves whole lines, and everything it had
written before: what is in the page cache survives the process."""

import json
import os
import time


class Journal:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event, **facts):
        line = json.dumps({"t": round(time.monotonic(), 6), "ev": event, **facts}, separators=(",", ":"))
        os.write(self.file, line.encode() + b"\n")


def read(path):
    """All lines of a journal; none if there is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]
