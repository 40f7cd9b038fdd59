"""Ranks of a run as threads of this process: what they compute, without the cost of a start."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from unittest.mock import patch

import torch

from relic.ppo.reduction import Reduction
from relic.run import components
from relic.run.distributed import Ranks
from relic.run.trainer import Trainer


class ThreadReduction(Reduction):
    """Threads meet at a barrier and read what the others have put down."""

    def __init__(self, rank, table, barrier):
        self.rank, self.world_size = rank, len(table)
        self._table, self._barrier = table, barrier

    def _all(self, x):
        return torch.stack(self.gather(x.detach().clone()))

    def gather(self, item):
        self._table[self.rank] = item
        self._barrier.wait()
        items = list(self._table)
        self._barrier.wait()  # before anybody puts down the next
        return items

    def sum(self, x):
        return x.copy_(self._all(x).sum(0))

    def max(self, x):
        return x.copy_(self._all(x).amax(0))

    def broadcast(self, module):
        for tensor in [*module.parameters(), *module.buffers()]:
            tensor.data.copy_(self._all(tensor.data)[0])

    def barrier(self):
        self._barrier.wait()


def train_on_ranks(config, count, *, updates=None):
    """Train a run on so many ranks, to its end or for so many updates."""
    table, barrier, turn = [None] * count, threading.Barrier(count), threading.Lock()
    build_policy = components.build_policy

    def one_at_a_time(*arguments):
        with turn:  # all threads seed, and draw from, the same generator
            return build_policy(*arguments)

    def train(rank):
        reduction = ThreadReduction(rank, table, barrier)
        try:
            ranks = Ranks(rank, count, torch.device("cpu"), reduction)
            with closing(Trainer(config, ranks)) as trainer:
                trainer.resume()
                left = itertools.count(1)
                for _ in trainer.updates(lambda: updates is not None and next(left) >= updates):
                    pass
        except BaseException:
            barrier.abort()  # or the others would wait for ever
            raise

    with patch.object(components, "build_policy", one_at_a_time), ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(train, rank) for rank in range(count)]
    errors = [f.exception() for f in futures if f.exception()]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
