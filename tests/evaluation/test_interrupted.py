"""An evaluation that is killed, or whose disk refuses, ends as if it was not once it goes on."""

import errno
import os
import shutil

import pytest

from relic.evaluate import evaluate
from relic.stops import FAILED
from tests.evaluation.test_cli import SMALL, files_of
from tests.run.interrupted import refusing, watching

MORE = ("controls=[cleared]", "workers=1", "replay=[0]", "videos=[1/0]", "progress=false")


@pytest.fixture
def go(run):
    """Evaluate into a directory, and return the exit status."""
    return lambda out: evaluate([f"run={run}", f"out={out}", *SMALL, *MORE])


@pytest.mark.slow
def test_it_ends_alike_whichever_operation_it_was_killed_at(go, tmp_path):
    out = tmp_path / "out"
    assert go(tmp_path / "whole") == 0
    whole = files_of(tmp_path / "whole")
    with watching(out, tmp_path / "copies") as watcher:
        assert go(out) == 0
    assert len(watcher.operations) > 30
    found = {}
    for number in range(0, len(watcher.operations), 4):
        shutil.rmtree(out)
        copy = watcher.copies / f"{number:04d}"
        if copy.exists():  # none: before the directory was made
            shutil.copytree(copy, out)
        if go(out) or files_of(out) != whole:
            found[number] = watcher.operations[number]
    assert found == {}


@pytest.mark.slow
def test_a_disk_that_refuses_is_told_in_a_line_and_costs_nothing(go, tmp_path, capsys):
    out, found = tmp_path / "out", {}
    assert go(tmp_path / "whole") == 0
    whole = files_of(tmp_path / "whole")
    with refusing(out, errno.ENOSPC) as counting:
        assert go(out) == 0
    assert len(counting.operations) > 30
    for number in range(1, len(counting.operations), 6):
        shutil.rmtree(out)
        capsys.readouterr()
        with refusing(out, errno.ENOSPC, at=number):
            status = go(out)
        said = capsys.readouterr().err.splitlines()
        told = [line for line in said if os.strerror(errno.ENOSPC) in line]
        if status != FAILED or len(told) != 1 or go(out) or files_of(out) != whole:
            found[counting.operations[number]] = (status, said)
    assert found == {}
