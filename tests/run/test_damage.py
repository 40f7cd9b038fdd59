"""A damaged file of a run changes no result: it is refused in a sentence, said, or made anew."""

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from relic.evaluation.trained_agent import find_agent
from relic.policy import load
from relic.run.distributed import ALONE
from relic.run.trainer import Trainer
from relic.stops import stop_of

from .ends import config_of, end_of, run_in

FLIPS = 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run that was stopped within its second rollout, and the same one at its end."""
    root = tmp_path_factory.mktemp("runs")
    with closing(
        Trainer(config_of(root / "stopped", **{"checkpoint.keep": "2"}), ALONE)
    ) as trainer:
        for update, _ in enumerate(trainer.updates(lambda: False), 1):
            if update == 3:
                break
    shutil.copytree(root / "stopped", root / "finished")
    run_in(root / "finished", plots=False)
    assert list(root.glob("stopped/checkpoints/rollout/*"))
    return root


def files_of(run_dir: Path) -> list[str]:
    """Return all files of a run that anybody reads, relative to it."""
    files = (str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file())
    return sorted(name for name in files if name != ".lock")


def flipped(content: bytes, number: int) -> bytes:
    """Return a content with one bit changed."""
    rng = np.random.default_rng([len(content), number])
    place, bit = int(rng.integers(len(content))), int(rng.integers(8))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def damage(run_dir: Path, name: str, kind: str) -> None:
    """Damage a file of a run."""
    path = run_dir / name
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "half":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "other":
        # The same file of another checkpoint if there is one, else one of the same kind.
        alike = [p for p in run_dir.rglob(path.name) if p != path]
        alike += [p for p in sorted(run_dir.rglob(f"*{path.suffix}")) if p != path]
        if alike:
            path.write_bytes(alike[0].read_bytes())
    elif kind == "shape":
        tensors = load_file(path)
        key = max(tensors, key=lambda key: tensors[key].numel())
        tensors[key] = tensors[key].reshape(-1)[:-1].clone()
        save_file(tensors, path)
    else:
        path.write_bytes(flipped(content, int(kind.removeprefix("flip"))))


def kinds_of(name: str) -> list[str]:
    kinds = ["missing", "empty", "half", "other", *(f"flip{i}" for i in range(FLIPS))]
    return [*kinds, "shape"] if name.endswith(".safetensors") else kinds


def read_by_others(run_dir: Path) -> list:
    """Return what evaluation reads of a run; a text where it is refused."""
    found = []
    for which in ("latest", "best"):
        try:
            agent = find_agent(run_dir, which)
            weights = load(agent.checkpoint).state_dict()
            found.append((agent.env, agent.options, agent.meta, agent.trained_steps, weights))
        except Exception as error:
            found.append(told(error))
    return found


def told(error: Exception) -> str:
    """Return the sentence that a user is told; whoever would see a traceback fails."""
    stop = stop_of(error)
    if stop is None:
        raise AssertionError("not in a sentence") from error
    return stop.text


def alike(a, b) -> bool:
    """Say whether what was read is what should be, or was refused."""
    if isinstance(a, str):
        return True
    return a[:4] == b[:4] and all(torch.equal(a[4][key], b[4][key]) for key in b[4])


def wrong_after(runs: Path, base: str, name: str, kind: str, caplog) -> list[str]:
    """Damage a file, read and resume the run; return what came out otherwise without a word."""
    run_dir = runs / "damaged"
    shutil.rmtree(run_dir, ignore_errors=True)
    shutil.copytree(runs / base, run_dir)
    read = read_by_others(run_dir)
    damage(run_dir, name, kind)
    caplog.clear()
    wrong = []
    for found, right in zip(read_by_others(run_dir), read, strict=True):
        if not alike(found, right):
            wrong.append("what evaluation reads")
    try:
        run_in(run_dir, plots=False)
        end = end_of(run_dir, plots=False)  # reads the metrics, as plots do
    except Exception as error:
        told(error)
        return wrong
    whole = end_of(runs / "finished", plots=False)
    for found, right in zip(
        read_by_others(run_dir), read_by_others(runs / "finished"), strict=True
    ):
        if not alike(found, right):
            wrong.append("what evaluation reads in the end")
    if Path(name).name not in caplog.text:
        newest = whole["said"]["checkpoints/latest.json"]["name"]
        wrong += [key for key in ("said", "metrics") if end[key] != whole[key]]
        wrong += ["weights"] if end["weights"][newest] != whole["weights"][newest] else []
    return wrong


@pytest.mark.parametrize(
    ("base", "name", "kind"),
    [
        ("stopped", "checkpoints/step_000000000192/run.torch.safetensors", "flip0"),
        ("stopped", "checkpoints/step_000000000192/policy.json", "flip1"),
        ("stopped", "checkpoints/rollout/rank0of1_0000000032_0_16.numpy.safetensors", "flip0"),
        ("stopped", "metrics.jsonl", "half"),
        ("stopped", "config.yaml", "flip2"),
        ("finished", "checkpoints/best.json", "other"),
        ("finished", "final_scores.json", "flip0"),
    ],
)
def test_damage_is_noticed(runs, caplog, base, name, kind):
    assert wrong_after(runs, base, name, kind, caplog) == []


@pytest.mark.slow
@pytest.mark.parametrize("base", ["stopped", "finished"])
def test_damage_to_any_file_is_noticed(runs, caplog, base):
    found = {}
    for name in files_of(runs / base):
        for kind in kinds_of(name):
            if wrong := wrong_after(runs, base, name, kind, caplog):
                found[f"{name} {kind}"] = wrong
    assert found == {}


@pytest.mark.slow
def test_damage_to_a_run_of_an_older_version_is_no_traceback(runs):
    """It has no checksums, so that not all of it can be noticed."""
    shutil.rmtree(runs / "older", ignore_errors=True)
    shutil.copytree(runs / "stopped", runs / "older")
    latest = runs / "older" / "checkpoints" / "step_000000000192"
    (latest / "checksums.json").unlink()
    names = [f"checkpoints/{latest.name}/{p.name}" for p in sorted(latest.iterdir())]
    for name in names:
        for kind in kinds_of(name):
            run_dir = runs / "damaged"
            shutil.rmtree(run_dir, ignore_errors=True)
            shutil.copytree(runs / "older", run_dir)
            damage(run_dir, name, kind)
            try:
                run_in(run_dir, plots=False)
            except Exception as error:
                told(error)
