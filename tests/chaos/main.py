"""One chaos run, or one for each store: see `run`."""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

from journal import Journal

HERE = pathlib.Path(__file__).resolve().parent
# What is run when no store is named.
STORES = ("embedded", "redis")
HELD, BROKEN, FAILED = 0, 1, 2
# How long after the faults messages may still be without an answer: what is in flight or in doubt must become known; the
# next hop may still take longer than anybody waits, twice in a row.
CALM = {"embedded": 30, "redis": 45}
# How many recipients a message has at most: each may have to wait for the one before.
MOST_RECIPIENTS = 5
WORKERS = {"embedded": 40, "redis": 40}
# Uses left of an alias up to which it is used up at the end, to see that what it says it can do it does.
FILL = 25
# A longer run is played in rounds, each on a stage of its own: all journals of one are held in memory to be judged.
ROUND = 300
MOST_STORIES, MOST_SHOWN = 20, 2


def arguments():
    parser = argparse.ArgumentParser(prog="tests/chaos/run")
    parser.add_argument("--store", choices=("embedded", "redis"), help="without it: each in turn")
    parser.add_argument("--seconds", type=int, default=60, help="how long faults happen, for each store")
    parser.add_argument("--seed", type=int, help="what goes wrong when; as the operating system's timing lets it")
    parser.add_argument("--binary", type=pathlib.Path, help="the program; otherwise target/debug/tempalias")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all journals in any case")
    return parser.parse_args()


class Run:
    def __init__(self, store, seconds, seed):
        self.store, self.seconds, self.seed = store, seconds, seed
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"chaos-{store}-"))
        self.began = (time.time(), time.monotonic())
        self.journal = Journal(self.folder / "stage.jsonl")
        self.stage = self.load = None
        self.broken, self.extra = [], []

    def play(self):
        """The storm, then the calm, then the count."""
        from monkey import Monkey
        from stage import Stage

        try:
            self.stage = Stage(self.store, self.folder, self.journal, self.seed)
            self.stage.open()
            self.load = self.start_load()
            self.stage.proxy.tell("storm")
            Monkey(self.stage, self.seed).play(self.seconds)
            self.stage.heal()
            self.load.communicate(b"drain\n", timeout=MOST_RECIPIENTS * CALM[self.store] + 120)
            if self.load.returncode != 0:
                raise RuntimeError(f"the senders failed:\n{(self.folder / 'mta.log').read_text()[-3000:]}")
            self.check_processes()
            return self.end()
        finally:
            if self.load and self.load.poll() is None:
                self.load.kill()
            if self.stage:
                self.stage.close()

    def start_load(self):
        from sinks import POSTFIX, postfix_environment

        plan = {"seed": self.seed, "nodes": [node.ports for node in self.stage.nodes],
                "journal": str(self.folder / "senders.jsonl"), "workers": WORKERS[self.store], "life": 20,
                "calm": CALM[self.store], "smtp_source": str(POSTFIX / "usr/sbin/smtp-source"),
                "environment": postfix_environment()}
        path = self.folder / "plan.json"
        path.write_text(json.dumps(plan))
        with open(self.folder / "mta.log", "ab") as log:
            return subprocess.Popen([sys.executable, HERE / "mta.py", path], stdin=subprocess.PIPE, stderr=log)

    def check_processes(self):
        for actor in (self.stage.sink, self.stage.redis):
            if actor and actor.deaths:
                raise RuntimeError(f"{actor.name} ended by itself, with status {actor.deaths}")
        for node in self.stage.nodes:
            node.look()
            if node.deaths:
                self.accuse("P9", f"{node.name} ended by itself, with status {node.deaths}")
            panics = [line for line in node.server.log().splitlines() if "panicked" in line]
            if panics:
                self.accuse("P9", f"{node.name} panicked: {panics[0]}")

    def end(self):
        """Uses as the API tells them, once nothing is in flight; then a kill and the same question; then the rest of
        the uses is taken."""
        from evidence import Evidence
        from judge import Judge
        from stage import DOT_TIMEOUT

        evidence = Evidence(self.folder, DOT_TIMEOUT)
        aliases = list(evidence.aliases.values())
        standings = self.standings(aliases)
        for node in self.stage.nodes:
            node.kill()
            node.start()
        after = {alias["address"]: self.shown(alias) for alias in aliases[-10:]}
        for address, standing in after.items():
            if (standing["used"], standing["held"]) != (standings[address]["used"], standings[address]["held"]):
                self.accuse("P2", f"{standings[address]} before a kill, {standing} after it", address)
        self.fill(aliases, standings)
        for actor in self.stage.actors:
            actor.kill()
        self.stage.proxy.close()
        final = Evidence(self.folder, DOT_TIMEOUT)
        self.count_filled(final, standings)
        # What was filled up is not part of the standings: the judge sees the run as it was before.
        final.sink = [line for line in final.sink if not str(line.get("m")).startswith("fill")]
        judge = Judge(final, standings)
        self.broken = judge.run() + self.extra
        return judge

    def accuse(self, promise, what, address=None):
        self.extra.append({"promise": promise, "what": what, "m": None, "to": address})

    def standings(self, aliases):
        """Asked until two answers, some time apart, are the same: what the sender left behind goes on for a while."""
        from stage import DOT_TIMEOUT

        def all_of_them():
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                return dict(zip([alias["address"] for alias in aliases], pool.map(self.look, aliases)))

        now = all_of_them()
        for _ in range(3):
            before = now
            if any(standing["held"] for standing in now.values()):
                time.sleep(DOT_TIMEOUT / 2)  # an attempt whose sender has gone ends at its own deadline
            now = all_of_them()
            if now == before:
                break
        return now

    def look(self, alias):
        node = self.stage.nodes[0]
        status, reply = node.server.request("GET", f"/aliases/{alias['aid']}", key=alias["key"])
        if status != 200:
            raise RuntimeError(f"GET /aliases/{alias['aid']}: {status} {reply}")
        return {"used": reply["used"], "held": reply["held"]}

    def shown(self, alias):
        reply = json.loads(self.stage.nodes[-1].command("alias", "show", alias["address"], "--json"))
        return {"used": reply["used"], "held": reply["held"]}

    def fill(self, aliases, standings):
        """Takes the uses that are left, and one more: the counter is not only right, it is what is acted upon."""
        from senders import letter, send

        def fill_one(alias):
            standing, told = standings[alias["address"]], []
            left = alias["limit"] - standing["used"]
            for number in range(left + 1):
                message = letter(f"fill-{alias['aid']}-{number}")
                for _ in range(3):  # "come again": a machine so busy that the next hop missed its deadline
                    reply = send(self.stage.nodes[0].server, alias["address"], message, "fill@fill.example")
                    if not reply.startswith("451"):
                        break
                told.append(reply)
            wanted = "450 4.2.1" if standing["held"] else "550 5.1.1"
            if any(not reply.startswith("250") for reply in told[:-1]) or not told[-1].startswith(wanted):
                self.accuse("P3", f"{left} of {alias['limit']} uses left, {standing['held']} held; one message more than "
                            f"that was told {told}", alias["address"])

        counted = [alias for alias in aliases if alias["limit"] is not None]
        # Where more is counted than there is, the judge says so.
        chosen = [alias for alias in counted if 0 <= alias["limit"] - standings[alias["address"]]["used"] <= FILL][-200:]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(fill_one, chosen))
        self.filled = len(chosen)

    def count_filled(self, evidence, standings):
        """With the fill, no alias has passed more than N."""
        distinct = {}
        for line in evidence.sink:
            if line["ev"] == "accepted":
                for target in line["to"]:
                    alias = evidence.by_target[target]
                    key = line["mid"] if line["a"] is None else line["m"]
                    distinct.setdefault(alias["address"], set()).add(key)
        for address, keys in distinct.items():
            limit = evidence.aliases[address]["limit"]
            if limit is not None and len(keys) > limit:
                self.accuse("P2", f"{len(keys)} distinct messages through an alias for {limit}, used up at the end", address)


def table(run, judge, seconds):
    evidence, notes = judge.evidence, judge.notes
    attempts, stage = evidence.attempts, evidence.stage
    done = next((line for line in evidence.senders if line["ev"] == "done"), {})
    endings = {}
    for line in evidence.ended.values():
        endings[line["how"]] = endings.get(line["how"], 0) + 1
    accepted = [line for line in evidence.sink if line["ev"] == "accepted"]
    faults = [fault for one in evidence.connections.values() for fault in one["faults"]]
    background = [line for line in evidence.senders if line["ev"] == "smtp-source"]

    def events(event, who):
        return sum(line["ev"] == event and line.get("who", "").startswith(who) for line in stage)

    yield "aliases", f"{len(evidence.aliases)}: " + ", ".join(
        f"{sum(a['limit'] == limit for a in evidence.aliases.values())} for {limit or 'any number'}"
        for limit in (1, 2, 5, 20, 100, None))
    yield "messages", f"{len(evidence.by_message)} of retrying senders, {len(evidence.ended)} recipients in all"
    yield "attempts", (f"{len(attempts)}, {sum(a['end'].startswith('hung up') for a in attempts)} hung up on purpose, "
                       f"{sum(a['end'].startswith('lost') for a in attempts)} lost, "
                       f"{sum(a['end'].startswith('timed') for a in attempts)} timed out, "
                       f"{done.get('unreachable', 0)} found nobody")
    yield "recipients ended", ", ".join(f"{count} {how}" for how, count in sorted(endings.items()))
    yield "smtp-source", f"{len(background)} runs, {sum(line['code'] != 0 for line in background)} broken off"
    yield "taken by the next hop", (f"{len(accepted)} ({sum(line['a'] is None for line in accepted)} of smtp-source), "
                                    f"{notes['delivered, distinct']} distinct by alias")
    yield "refused by the next hop", str(sum(line["ev"] == "refused" for line in evidence.sink))
    yield "250s read by senders", f"{notes['told 250']} recipients, each taken by the next hop before"
    yield "refused as used up", str(notes["refused: used up"])
    yield "kills", ", ".join(f"{who} {events('killed', who)}" for who in ("node", "sink", "redis") if events("up", who))
    yield "stops", ", ".join(f"{who} {events('stopping', who)}" for who in ("node", "sink", "redis") if events("up", who))
    yield "faults of the proxy", (f"{len(faults)} in {len(evidence.connections)} connections, "
                                  f"{sum('verdict' in what or 'dot' in what for _, what in faults)} of them at a final dot")
    yield "duplicates, excused", str(sum(judge.excused.values()))
    for reason, count in judge.excused.most_common():
        yield "", f"{count} {reason}"
    yield "uses", (f"{notes['aliases counted exactly']} aliases with nothing in doubt: used = delivered; "
                   f"{notes['counted, not delivered, in doubt']} uses counted for messages in doubt; "
                   f"{notes['held at the end']} held")
    yield "used up at the end", f"{run.filled} aliases, each took what it had left and not one more"
    yield "never told", (f"{notes['never told: a use is held']} recipients waited for a held use until they were too old, "
                         f"{notes['never told: behind another whose use is held']} behind one who did")
    yield "took", f"{seconds:.0f} s"


def report(run, judge, seconds):
    for name, text in table(run, judge, seconds):
        print(f"  {name:24} {text}")
    if not run.broken:
        return
    from story import tell

    told = {}
    for fault in run.broken:
        where = fault["m"] or fault["to"]
        path = told.get(where)
        if where and path is None and len(told) < MOST_STORIES:
            told[where] = path = run.folder / f"story-{where}.txt"
            lines = tell(judge.evidence, run.folder, run.began, fault["m"], fault["to"])
            path.write_text("\n".join(lines) + "\n")
        print(f"  BROKEN {fault['promise']}: {fault['what']}" + (f" (to {fault['to']}; all of it: {path})" if path else ""))
    for path in list(told.values())[:MOST_SHOWN]:
        lines = path.read_text().splitlines()
        print(f"  {path.name}:", *(f"    {line}" for line in lines[:60]), sep="\n")


def counts(judge):
    """What a row of the table in docs/proof.md tells."""
    evidence = judge.evidence
    return Counter(
        attempts=len(evidence.attempts), kills=sum(line["ev"] == "killing" for line in evidence.stage),
        stops=sum(line["ev"] == "stopping" for line in evidence.stage),
        faults=sum(len(one["faults"]) for one in evidence.connections.values()), told=judge.notes["told 250"],
        excused=sum(judge.excused.values()), held=judge.notes["held at the end"])


def row(store, seconds, seed, total, broken):
    return (f"| {datetime.date.today()} | {store} | {seconds} | {seed} | {total['attempts']} | {total['kills']}, "
            f"{total['stops']}, {total['faults']} | {total['told']} | {total['excused']} | {total['held']} | {broken} |")


def play_rounds(store, seconds, seed, keep):
    total, done = Counter(), 0
    while done < seconds:
        part = min(ROUND, seconds - done)
        code = play(store, part, seed + done // ROUND, keep, total)
        if code != HELD:
            return code
        done += part
    if seconds > ROUND:
        print("chaos: as a row of docs/proof.md:", row(store, seconds, seed, total, 0), sep="\n")
    return HELD


def play(store, seconds, seed, keep, total):
    from stage import DoesNotStart

    print(f"chaos: {store}, {seconds} s, seed {seed}", flush=True)
    run = Run(store, seconds, seed)
    began = time.monotonic()
    try:
        judge = run.play()
    except DoesNotStart as error:
        print(f"  BROKEN P9: does not start after a kill: {error}")
        print(f"chaos: 1 broken promises, seed {seed}; everything is kept in {run.folder}")
        return BROKEN
    except Exception as error:  # whatever it was, it is told, and the journals are kept
        import traceback

        traceback.print_exc()
        print(f"chaos: the run itself failed: {error}\nchaos: everything is kept in {run.folder}")
        return FAILED
    total.update(counts(judge))
    report(run, judge, time.monotonic() - began)
    if run.broken:
        print(f"chaos: {len(run.broken)} broken promises, seed {seed}; everything is kept in {run.folder}")
        return BROKEN
    print("chaos: all promises held" + (f"; everything is kept in {run.folder}" if keep else ""))
    if not keep:
        shutil.rmtree(run.folder, ignore_errors=True)
    return HELD


def stop(*_):
    raise KeyboardInterrupt


def main():
    # Whatever ends the run, its processes end with it.
    signal.signal(signal.SIGTERM, stop)
    options = arguments()
    if options.binary:
        os.environ["TEMPALIAS"] = str(options.binary.resolve())
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    stores = (options.store,) if options.store else STORES
    return max(play_rounds(store, options.seconds, seed, options.keep) for store in stores)


if __name__ == "__main__":
    sys.exit(main())
