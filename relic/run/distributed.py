"""The process group of a run, as `train.py` or `torchrun` starts it; one process is a group."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from relic.ppo.reduction import RankReduction, Reduction
from relic.schema import ConfigError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device
    reduction: Reduction
    on_this_machine: int = 1
    """Those that share this machine's memory."""
    on_this_device: int = 1
    """Those that share this process's GPU."""
    supervised: bool = False
    """The parent of all tells the user about signals."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs and checkpoints for all."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Say whether any rank raised the flag; all ranks must ask together."""
        if self.world_size == 1:
            return flag
        return bool(self.reduction.max(torch.tensor([float(flag)], device=self.device)).item())

    def total(self, count: int) -> int:
        """Return the sum over all ranks, which must call this together."""
        if self.world_size == 1:
            return count
        # As float64, which holds any count.
        part = torch.tensor([count], dtype=torch.float64, device=self.device)
        return int(self.reduction.sum(part).item())

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.reduction.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.world_size > 1:
            dist.destroy_process_group()


ALONE: Final = Ranks(0, 1, torch.device("cpu"), Reduction())
"""One process on a CPU."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """How the ranks that `train.py` starts on this machine find each other."""

    store: str
    """A file that is not there yet."""
    rank: int
    world_size: int


def join_ranks(device: str = "auto", meeting: Meeting | None = None) -> Ranks:
    """Join the group of this process's ranks, or be the only process.

    Args:
        device: `auto`, `cpu` or `cuda`; auto takes a GPU where there is one.
        meeting: Of ranks that `train.py` has started; they take turns on the GPUs where there are
            more than those. None: the group that `torchrun` describes, if there is one.

    Raises:
        ConfigError: If CUDA is asked for and absent.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("device: must be a device of this machine, got cuda. Use device=cpu.")
    use_cuda = has_cuda and device != "cpu"
    local = int(os.environ.get("LOCAL_RANK", 0))
    if meeting is not None and use_cuda:
        local = meeting.rank % torch.cuda.device_count()
    chosen = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        # `RankReduction` takes tensors to the process's own GPU, by the mere name cuda.
        torch.cuda.set_device(chosen)
    if meeting is not None:
        return _meet(meeting, chosen)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        return Ranks(0, 1, chosen, Reduction())
    if not dist.is_initialized():
        dist.init_process_group("nccl" if use_cuda else "gloo")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return Ranks(dist.get_rank(), dist.get_world_size(), chosen, RankReduction(), here)


def _meet(meeting: Meeting, device: torch.device) -> Ranks:
    if meeting.world_size == 1:
        return Ranks(0, 1, device, Reduction(), supervised=True)
    # Else gloo asks for the address of the machine's name, which not every machine has.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    rank, count = meeting.rank, meeting.world_size
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting.store}",
        rank=rank,
        world_size=count,
        # The parent notices who is dead; who is alive may wait for the first one's pretraining.
        timeout=timedelta(days=1),
    )
    # Gloo also for GPUs: NCCL refuses two ranks on one.
    sharing = -(-count // torch.cuda.device_count()) if device.type == "cuda" else 1
    return Ranks(rank, count, device, RankReduction(), count, sharing, supervised=True)
