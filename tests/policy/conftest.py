"""What every memory must do, whatever it is made of."""

from collections.abc import Callable

import pytest
import torch

from relic.policy.memory import checker
from relic.policy.memory.sequence_model import SequenceModel


@pytest.fixture
def check_memory() -> Callable[[SequenceModel], None]:
    """Hold a memory to everything that its interface promises."""
    return checker.check_memory


@pytest.fixture
def trials_of() -> Callable[..., checker.Trials]:
    return checker.make_trials


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
