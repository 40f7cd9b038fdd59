import pytest

from relic.evaluation import workers as progress_module
from relic.evaluation.controls import ContextControl
from relic.evaluation.records import Job
from relic.evaluation.workers import progress
from tests.evaluation.conftest import small_protocol


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests move, and a line for each episode."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress_module, "_LINE_EVERY_S", 0.0)
    return now


def said(capsys):
    return capsys.readouterr().err.splitlines()


def test_episodes_are_counted_with_the_time_left(clock, capsys):
    protocol = small_protocol(trials=3, repeats=2, episodes=4, block=4)
    jobs = [Job(c, b) for c in (ContextControl.KEPT, ContextControl.CLEARED) for b in range(2)]
    with progress(protocol, jobs[1:], 4, enabled=True) as on_episode:
        for _ in range(2):
            clock[0] += 300.0
            on_episode({"length": 12})
    # Left are blocks of 2, 4 and 2 units with four episodes each.
    assert said(capsys) == [
        "1 of 4 blocks are done already",
        "1 of 32 episodes, 2:35:00 left",
        "2 of 32 episodes, 2:30:00 left",
    ]


def test_steps_are_counted_where_they_are_limited(clock, capsys):
    protocol = small_protocol(trials=3, repeats=1, episodes=None, steps=40, block=4)
    with progress(protocol, [Job(ContextControl.KEPT, 0)], 1, enabled=True) as on_episode:
        clock[0] += 10.0
        on_episode({"length": 12})
        clock[0] += 10.0
        on_episode({"length": 8})
    assert said(capsys) == ["12 of 120 steps, 1:30 left", "20 of 120 steps, 1:40 left"]


def test_nothing_is_said_if_not_wanted(clock, capsys):
    with progress(small_protocol(), [Job(ContextControl.KEPT, 0)], 4, enabled=False) as on_episode:
        clock[0] += 60.0
        on_episode({"length": 12})
    assert said(capsys) == []
