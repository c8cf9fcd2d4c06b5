"""Holds the journals of a run against the promises. Counts only from the sink's file and the senders' logs; what
tempalias itself says (used and held of each alias) is one of the things that are checked."""

from collections import Counter, defaultdict

OVER = "550 5.1.1"
# After so many attempts in doubt a message is refused although uses are left.
MOST_ATTEMPTS = 20


class Judge:
    def __init__(self, evidence, standings):
        """`standings`: what the API says of each alias at the end, by address."""
        self.evidence, self.standings = evidence, standings
        self.broken, self.notes = [], Counter()
        self.excused = Counter()
        self.messages_to = defaultdict(set)
        for message, to in evidence.ended:
            self.messages_to[to].add(message)
        self.delivered = defaultdict(lambda: defaultdict(list))
        self.by_message = defaultdict(list)
        for line in evidence.sink:
            self.by_message[line.get("m")].append(line)
            if line["ev"] == "accepted":
                key = line["mid"] if line["a"] is None else line["m"]
                for target in line["to"]:
                    self.delivered[evidence.by_target[target]["address"]][key].append(line)

    def accuse(self, promise, what, message=None, address=None):
        self.broken.append({"promise": promise, "what": what, "m": message, "to": address})

    def run(self):
        self.every_message_whole()
        self.nothing_lost()
        self.never_more_than_n()
        self.uses()
        self.nothing_twice()
        self.refusals()
        self.nobody_stuck()
        return self.broken

    def every_message_whole(self):
        for line in self.evidence.sink:
            if line["ev"] == "accepted" and line.get("whole") is False:
                self.accuse("P4", "the message that arrived is not the one that was sent", line["m"])

    def nothing_lost(self):
        """A sender that was told 250 had its message taken by the next hop, before."""
        for attempt in self.evidence.attempts:
            if not attempt["dot"] or not (attempt["verdict"] or "").startswith("250"):
                continue
            for to in attempt["accepted"]:
                self.notes["told 250"] += 1
                lines = self.delivered[to].get(attempt["m"], [])
                if not any(line["t"] <= attempt["t"] for line in lines):
                    self.accuse("P1", f"told 250 in {attempt['a']}, and the next hop never took it", attempt["m"], to)

    def never_more_than_n(self):
        for address, alias in self.evidence.aliases.items():
            count, limit = len(self.delivered[address]), alias["limit"]
            self.notes["delivered, distinct"] += count
            if limit is not None and count > limit:
                self.accuse("P2", f"{count} distinct messages through an alias for {limit}", None, address)

    def uses(self):
        """What is counted was delivered, or is in doubt and its sender never came back."""
        for address, alias in self.evidence.aliases.items():
            if alias["limit"] is None:
                continue
            standing, taken = self.standings[address], self.delivered[address]
            used, held = standing["used"], standing["held"]
            self.notes["held at the end"] += held
            if used > alias["limit"]:
                self.accuse("P2", f"{used} uses counted of an alias for {alias['limit']}", None, address)
            if used < len(taken):
                self.accuse("P2", f"{len(taken)} distinct messages delivered, but only {used} counted", None, address)
                continue
            if alias["kind"] == "background":
                self.background(address, used - len(taken), held)
                continue
            doubtful = self.doubtful(address)
            undelivered = {message for message in doubtful if message not in taken}
            unsettled = {message for message in doubtful if not self.known_delivered(message, address)}
            self.notes["aliases counted exactly"] += not undelivered
            begun_anew = self.begun_anew(address)
            self.notes["counted, not delivered, in doubt"] += max(0, used - len(taken) - begun_anew)
            self.notes["counted twice: refused after doubt, and sent anew"] += begun_anew
            if used - len(taken) > len(undelivered) + begun_anew:
                self.accuse("P3", f"{used} uses counted: {len(taken)} delivered, {begun_anew} of them anew after a refusal, at "
                            f"most {len(undelivered)} in doubt ({', '.join(sorted(undelivered)) or 'none'})", None, address)
            if held > len(unsettled):
                self.accuse("P3", f"{held} uses held, but only {len(unsettled)} messages can be in doubt "
                            f"({', '.join(sorted(unsettled)) or 'none'})", None, address)

    def begun_anew(self, address):
        """How often the next hop took a message, refused it for good when it came again, and took it once more: the
        refusal ends the claim and spends its use, and a sender that did not hear of it begins anew."""
        target, count = self.evidence.aliases[address]["target"], 0
        for message, lines in self.delivered[address].items():
            first, last = min(line["t"] for line in lines), max(line["t"] for line in lines)
            count += sum(line["ev"] == "refused" and line["reply"][0] == "5" and target in line["to"]
                         and first < line["t"] < last for line in self.by_message[message])
        return count

    def background(self, address, undelivered, held):
        """smtp-source never comes back: what it left in doubt is held, and nothing else."""
        broken_off = sum(line["ev"] == "smtp-source" and line["to"] == address and line["code"] != 0
                         for line in self.evidence.senders)
        self.notes["counted, not delivered, in doubt"] += undelivered
        if undelivered > held:
            self.accuse("P3", f"{undelivered} uses counted and not delivered, but only {held} held", None, address)
        if held and not broken_off:
            # The last one is ended by us, and not written down.
            last = not any(line["t"] > self.evidence.calm - 15 for line in self.evidence.senders
                           if line["ev"] == "smtp-source" and line["to"] == address)
            self.notes["background held without a failed sender"] += not last

    def doubtful(self, address):
        """Messages of which an attempt through this alias may have left a claim in doubt."""
        return {m for m in self.messages_to[address] if any(address in attempt["accepted"] and self.evidence.doubt(attempt)
                                                            for attempt in self.evidence.by_message[m])}

    def known_delivered(self, message, address):
        return any(self.evidence.reached(line) is not None and not self.evidence.why_unsettled(line)
                   for line in self.delivered[address].get(message, ()))

    def nothing_twice(self):
        for address, messages in self.delivered.items():
            counted = self.evidence.aliases[address]["limit"] is not None
            for message, lines in messages.items():
                per_attempt = Counter(line["a"] for line in lines if line["a"])
                for attempt, times in per_attempt.items():
                    if times > 1:
                        self.accuse("P3", f"delivered {times} times in one attempt, {attempt}", message, address)
                # Of the last attempt one is right. That one may be taken earlier than what was stuck on its way.
                for line in sorted(lines, key=self.evidence.begun)[:-1]:
                    reason = (self.evidence.why_unsettled(line) if counted else self.unread(line))
                    if reason:
                        self.excused[reason] += 1
                    else:
                        self.accuse("P3", f"delivered twice, and nothing recorded excuses it: first in {line['a']}",
                                    message, address)

    def unread(self, line):
        """An uncounted alias has no claims: its sender repeats what it heard no 250 for."""
        attempt = self.evidence.by_id.get(line["a"])
        read = attempt is None or (attempt["verdict"] or "").startswith("250")
        return None if read else "uncounted alias, and its sender read no 250"

    def refusals(self):
        """Nothing is refused for good but by the next hop, or because the alias is used up; and in our own words."""
        refused = defaultdict(set)
        for line in self.evidence.sink:
            if line["ev"] == "refused":
                refused[line["m"]].add(classes(line["reply"]))
        for attempt in self.evidence.attempts:
            replies = [(to, reply) for to, reply in attempt["rcpt"].items()]
            if attempt["verdict"]:
                replies += [(to, attempt["verdict"]) for to in (attempt["accepted"] or attempt["to"])]
            for to, reply in replies:
                if "hidden" in reply or "target.example" in reply:
                    self.accuse("P5", f"the reply names the target: {reply}", attempt["m"], to)
                if reply.startswith("5"):
                    self.refusal(attempt, to, reply, refused)

    def refusal(self, attempt, to, reply, refused):
        limit = self.evidence.aliases[to]["limit"]
        if not reply.startswith(OVER):
            if classes(reply) not in refused[attempt["m"]]:
                self.accuse("P9", f"told {reply!r}, and the next hop never said so", attempt["m"], to)
            return
        self.notes["refused: used up"] += 1
        taken = self.taken_and_kept(attempt, to)
        if taken:
            self.accuse("P3", f"told {reply!r} in {attempt['a']}, though the next hop took it in {taken}", attempt["m"], to)
        dots = sum(one["dot"] is not None for one in self.evidence.by_message[attempt["m"]])
        if dots <= MOST_ATTEMPTS and (limit is None or self.standings[to]["used"] != limit):
            self.accuse("P9", f"told {reply!r} in {attempt['a']}, but {self.standings[to]['used']} of {limit} uses are "
                        "counted", attempt["m"], to)

    def taken_and_kept(self, attempt, to):
        """The attempt in which the next hop took this message before, unless it refused it afterwards: a message that
        was delivered, or may have been, keeps its claim until its sender knows, or the next hop's refusal ends it."""
        message, until = attempt["m"], attempt["dot"] or attempt["began"]
        taken = [line for line in self.delivered[to].get(message, ()) if line["t"] < until]
        if not taken:
            return None
        target = self.evidence.aliases[to]["target"]
        ends = any(line["ev"] == "refused" and line["reply"][0] == "5" and target in line["to"]
                   for line in self.by_message[message] if line["t"] < attempt["t"])
        return None if ends else taken[0]["a"]

    def nobody_stuck(self):
        """Once the faults are over, every message is taken or refused, unless all uses left are held."""
        for (message, to), line in self.evidence.ended.items():
            if line["how"] != "too old" or line["t"] < self.evidence.calm:
                continue
            last = self.evidence.by_message[message][-1]
            reply = last["rcpt"].get(to, "")
            if to in last["accepted"]:
                reply = last["verdict"] or ""
            standing, limit = self.standings[to], self.evidence.aliases[to]["limit"]
            waits = reply.startswith("450 4.2.1") and standing["used"] == limit and standing["held"] > 0
            self.notes["never told: a use is held"] += waits
            behind = reply.startswith("452 4.5.3") and any(
                self.standings[other]["held"] for other in last["accepted"] if other != to)
            self.notes["never told: behind another whose use is held"] += behind
            if not waits and not behind:
                self.accuse("P9", f"without an end although all is calm; last heard {reply!r} in {last['a']}, "
                            f"{standing['used']} of {limit} used, {standing['held']} held", message, to)


def classes(reply):
    """Class and enhanced code: what is passed on of a next hop's reply."""
    return reply[0], reply[4:].split(" ")[0]
