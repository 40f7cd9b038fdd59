"""A run that is killed at any operation on a file, and started again, ends as if it was not."""

import shutil

import pytest

from .ends import end_of, run_in
from .interrupted import watching


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A whole run and what it held before each operation on its files."""
    root = tmp_path_factory.mktemp("watched")
    run_in(root / "warm", plots=False)  # what is compiled on first use writes files of its own
    with watching(root / "run", root / "copies") as watcher:
        run_in(root / "run")
    shutil.copytree(root / "run", root / "whole")
    return watcher


def differing(watcher, numbers, *, plots: bool) -> list[str]:
    """Go on from the copies of these numbers, and return which end otherwise."""
    run_dir = watcher.watched
    whole = end_of(run_dir.parent / "whole", plots=plots)
    found = []
    for number in numbers:
        shutil.rmtree(run_dir)
        copy = watcher.copies / f"{number:04d}"
        if copy.exists():  # none: before the directory was made
            shutil.copytree(copy, run_dir)
        run_in(run_dir, plots=plots)
        end = end_of(run_dir, plots=plots)
        wrong = [key for key in whole if end[key] != whole[key]]
        if wrong:
            found.append(f"{number} before {watcher.operations[number]}: {wrong}")
    return found


def test_what_is_tested_covers_the_best_and_the_plots(watched):
    """Else neither a best that is lost nor plots that are missing would be noticed."""
    said = end_of(watched.watched.parent / "whole")["said"]
    best, latest = (said[f"checkpoints/{name}.json"]["name"] for name in ("best", "latest"))
    assert best != latest
    assert sum("plots" in operation for operation in watched.operations) > 5


def test_a_run_ends_alike_after_some_kills(watched):
    """Where a run was once lost: while the best is named, an old one goes, the end is drawn."""
    chosen = ("open checkpoints/best.json.tmp", "os.rmdir", "open plots/losses")
    numbers = [next(i for i, o in enumerate(watched.operations) if name in o) for name in chosen]
    assert differing(watched, numbers, plots=True) == []


@pytest.mark.slow
def test_a_run_ends_alike_whichever_operation_it_was_killed_at(watched):
    first = next(i for i, o in enumerate(watched.operations) if "plots" in o)
    assert differing(watched, range(first), plots=False) == []
    assert differing(watched, range(first, len(watched.operations)), plots=True) == []
