"""A simulator file for tests of worker processes; its ways to go wrong are asked for by options.

It runs under Python 3.9, like those of users."""

import ctypes
import os
import signal
import sys
import time

import numpy as np


class Simulator:
    def __init__(self, fail="", at=(), marker="", shown=None, paid=None, when=(), **options):
        self.observation_space = {
            "image": {"shape": [4, 4], "dtype": "uint8", "low": 0, "high": 255},
            "kind": {"n": 3},
            "place": {"shape": [2], "dtype": "float32", "low": -1000, "high": 1000},
        }
        self.action_space = {"n": 4}
        self.fail, self.at, self.marker, self.options = fail, list(at), marker, options
        self.shown, self.paid, self.when = shown, paid, when

    def begin(self, trial, episode):
        self.trial, self.episode, self.step_count = trial, episode, 0
        self.value = (trial * 31 + episode * 17) % 23
        if self.at == ["begin", trial, episode]:
            self.go_wrong()
        return self.look(), {}

    def look(self):
        place = np.array([self.value, self.step_count], dtype=np.float64)
        if self.shown is not None and self.breaks():
            place[0] = self.shown
        return {
            "image": np.full((4, 4), self.value % 256, dtype=np.uint8),
            "kind": self.trial % 3,
            "place": place,
        }

    def breaks(self):
        now = [self.trial, self.episode, self.step_count]
        return now in self.when or now[:2] in self.when

    def step(self, action):
        self.step_count += 1
        if self.at == [self.trial, self.episode, self.step_count]:
            self.go_wrong()
        self.value += action
        done = self.value % 13 == 0
        paid = self.paid if self.paid is not None and self.breaks() else self.value % 5 / 4
        return self.look(), paid, done, False, {"value": self.value}

    def expert_action(self):
        if self.fail == "expert":
            os._exit(3)
        return self.value % 4

    def pid(self):
        return os.getpid()

    def version(self):
        return list(sys.version_info[:2]), os.environ.get("RELIC_TEST", ""), sys.path[0]

    def double(self, array):
        return array * 2

    def go_wrong(self):
        """Fail as asked, only once if there is a marker file to tell."""
        if self.marker:
            if os.path.exists(self.marker):
                return
            with open(self.marker, "w"):
                pass
        print("about to fail", flush=True)
        if self.fail == "exit":
            os._exit(7)
        if self.fail == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fail == "raise":
            raise RuntimeError("the floor is lava")
        if self.fail == "hang":
            time.sleep(1000)
        if self.fail == "native hang":  # never lets go of the interpreter
            ctypes.PyDLL(None).sleep(1000)


def make(fail="", **options):
    if fail == "make":
        raise RuntimeError("no such scene")
    return Simulator(fail, **options)
