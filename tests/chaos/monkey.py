"""The chaos monkey: a random schedule, drawn from the seed, of what goes wrong when."""

import random
import threading
import time


class Monkey:
    """Strikes every second or so until it is told to stop. `kinds` are (weight, what)."""

    def __init__(self, stage, seed):
        self.stage, self.rng = stage, random.Random(f"monkey {seed}")
        self.over = threading.Event()
        self.failure, self.later = None, []
        self.kinds = [(6, self.kill_node), (3, self.freeze_node), (3, self.kill_sink), (1.5, self.freeze_sink),
                      (1, self.refuse_hop), (1, self.stall_hop), (2, self.cut_hop)]
        if stage.redis:
            self.kinds += [(3, self.kill_redis), (2, self.freeze_redis), (1, self.refuse_store),
                           (2, self.stall_store), (3, self.cut_store)]

    def play(self, seconds):
        """Returns when the time is over; what it broke stays broken until the stage is healed."""
        end = time.monotonic() + seconds
        self.over.wait(1.5)
        while (now := time.monotonic()) < end and not self.over.is_set():
            weights = [weight for weight, _ in self.kinds]
            [(_, strike)] = self.rng.choices(self.kinds, weights)
            strike()
            self.over.wait(min(end - now, self.rng.uniform(0.2, 2.2)))
        self.over.set()
        for thread in self.later:
            thread.join()
        if self.failure:
            raise self.failure

    def after(self, seconds, what):
        def run():
            self.over.wait(seconds)
            try:
                what()
            except Exception as failure:  # told by play(), in the main thread
                self.failure = self.failure or failure

        thread = threading.Thread(target=run)
        thread.start()
        self.later = [one for one in self.later if one.is_alive()] + [thread]

    def node(self):
        return self.rng.choice(self.stage.nodes)

    def restart(self, actor, longest):
        """Killed; up again at once, or after a while."""
        wait = 0 if self.rng.random() < 0.5 else self.rng.uniform(0.1, longest)
        actor.kill()
        self.after(wait, actor.start)

    def pause(self, actor, longest):
        wait = self.rng.random() ** 2 * longest + 0.1
        actor.freeze()
        self.after(wait, actor.thaw)

    def kill_node(self):
        self.restart(self.node(), 2)

    def freeze_node(self):
        # With several nodes sometimes for longer than a lease: the others take it for dead, and it is not.
        self.pause(self.node(), 25 if len(self.stage.nodes) > 1 else 9)

    def kill_sink(self):
        self.restart(self.stage.sink, 2)

    def freeze_sink(self):
        self.pause(self.stage.sink, 9)

    def kill_redis(self):
        self.restart(self.stage.redis, 3)

    def freeze_redis(self):
        self.pause(self.stage.redis, 6)

    def tell(self, do, side, **words):
        number = self.rng.randrange(len(self.stage.nodes))
        self.stage.proxy.tell(do, route=f"{side}{number}", **words)

    def refuse_hop(self):
        self.tell("refuse", "hop", seconds=self.rng.uniform(0.2, 3))

    def stall_hop(self):
        self.tell("stall", "hop", direction=self.rng.choice(("c2s", "s2c")), seconds=self.rng.uniform(0.2, 8))

    def cut_hop(self):
        self.tell("cut", "hop")

    def refuse_store(self):
        self.tell("refuse", "store", seconds=self.rng.uniform(0.2, 5))

    def stall_store(self):
        self.tell("stall", "store", direction=self.rng.choice(("c2s", "s2c")), seconds=self.rng.uniform(0.2, 6))

    def cut_store(self):
        self.tell("cut", "store")
