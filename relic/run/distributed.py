"""The processes of one run, as `torchrun` starts them; one process is a group of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass

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

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs and checkpoints for all."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Say whether any rank raised the flag; all ranks must ask together."""
        if self.world_size == 1:
            return flag
        return bool(self.reduction.max(torch.tensor([float(flag)], device=self.device)).item())

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.reduction.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.world_size > 1:
            dist.destroy_process_group()


def join_ranks(device: str = "auto") -> Ranks:
    """Join the group that `torchrun` describes in the environment, or be the only process.

    Args:
        device: `auto`, `cpu` or `cuda`; auto takes a GPU where there is one.

    Raises:
        ConfigError: If CUDA is asked for and absent.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError("device: must be a device of this machine, got cuda. Use device=cpu.")
    use_cuda = has_cuda and device != "cpu"
    local = int(os.environ.get("LOCAL_RANK", 0))
    chosen = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        # `RankReduction` takes tensors to the process's own GPU, by the mere name cuda.
        torch.cuda.set_device(chosen)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        return Ranks(0, 1, chosen, Reduction())
    if not dist.is_initialized():
        dist.init_process_group("nccl" if use_cuda else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), chosen, RankReduction())
