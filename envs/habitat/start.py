"""Starts workers that run habitat-sim, and reports in one sentence why a start failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from envs.core.process_pool import Lost, SimulatorSpec, WorkerError, WorkerPool
from envs.habitat.setting import Setting

SERVER_FILE: Final = Path(__file__).parent / "worker" / "scene_server.py"
INSTALL: Final = (
    "Name one that has it: env.options.python=/path/to/python (docs/HABITAT.md says how to install "
    "habitat-sim)."
)
_WHERE: Final = "Habitat.python"
_NO_MODULE: Final = re.compile(
    r"^\w*Error: (?:habitat_sim cannot be imported here|.*numpy).*$", re.M
)
_NO_DEVICE: Final = re.compile(
    r"^.*(?:unable to find (?:CUDA|EGL) device|no EGL device|"
    r"cannot (?:get|create|initialize) .*EGL|eglInitialize|EGL_BAD).*$",
    re.I | re.M,
)


class HabitatStartError(ValueError):
    """habitat-sim does not start; the message says why and what to do."""

    foreseen = True


def environment(gpu: int) -> dict[str, str]:
    """Return the variables of a worker: quiet, and no more threads than its own for drawing."""
    quiet = {"HABITAT_SIM_LOG": "quiet", "MAGNUM_LOG": "quiet", "GLOG_minloglevel": "2"}
    return quiet if gpu >= 0 else {**quiet, "LP_NUM_THREADS": "0"}


def explain(reason: str, *, python: str, gpu: int) -> HabitatStartError | None:
    """Turn what a lost worker said into an error that says what to do; None if it is unknown.

    Args:
        reason: the message of a `WorkerError` or a `Lost`.
        python: interpreter of the worker.
        gpu: device that it was to draw on.
    """
    if "must name an interpreter that starts" in reason:
        return HabitatStartError(
            f"{_WHERE}: must name an interpreter that starts, got {python!r}. {INSTALL}"
        )
    missing = _NO_MODULE.search(reason)
    if missing:
        said = missing[0].partition(": ")[2]
        return HabitatStartError(
            f"{_WHERE}: must name an interpreter that has habitat_sim and numpy, got {python!r} "
            f"({said}). {INSTALL}"
        )
    device = _NO_DEVICE.search(reason)
    if device:
        return HabitatStartError(
            f"Habitat.gpus: must name devices that EGL can draw on, got {gpu} "
            f"({device[0].strip()}). Use gpus=[-1] for the first device of EGL, which may be "
            "the CPU; where there is none, install libegl1 and libgl1-mesa-dri, or start the "
            "container with NVIDIA_DRIVER_CAPABILITIES=all."
        )
    return None


def start_simulators(pool: WorkerPool, gpus: Sequence[int]) -> None:
    """Let all workers start their simulators, without a scene.

    Args:
        pool: workers that run `SERVER_FILE`.
        gpus: devices that they draw on, in turn.

    Raises:
        HabitatStartError: One does not start, and why is known.
        WorkerError: One does not start.
    """
    gpu_of = [gpus[n % len(gpus)] for n in range(pool.num_workers)]
    arguments = [(gpu,) for gpu in gpu_of]
    answers = pool.call(range(pool.num_workers), "start", arguments, show=False)
    for gpu, answer in zip(gpu_of, answers, strict=True):
        if isinstance(answer, Lost):
            known = explain(answer.reason, python=pool.spec.python, gpu=gpu)
            raise known or WorkerError(f"Habitat: a worker {answer.reason}")


def start_pool(python: str, setting: Setting, scene_dataset: str, *, timeout: float) -> WorkerPool:
    """Start one worker with its simulator, for what is no environment.

    Args:
        python: interpreter of the worker.
        setting: what it draws, and on which device.
        scene_dataset: path of the dataset's configuration, or Habitat's `default`.
        timeout: seconds that a call may take.

    Raises:
        HabitatStartError: It does not start, and why is known.
        WorkerError: It does not start.
    """
    gpu = setting.gpus[0]
    options = setting.worker_options(scene_dataset)
    spec = SimulatorSpec(SERVER_FILE, python, options, environment(gpu), timeout=timeout)
    try:
        pool = WorkerPool(1, spec)
    except WorkerError as error:
        raise explain(str(error), python=python, gpu=gpu) or error from None
    try:
        start_simulators(pool, setting.gpus)
    except BaseException:
        pool.close()
        raise
    return pool


def check_simulator(python: str, gpu: int = -1) -> None:
    """Start habitat-sim once under an interpreter, draw nothing, and end it.

    Raises:
        HabitatStartError: It does not start, and why is known.
        WorkerError: It does not start.
    """
    setting = Setting(resolution=8, gpus=[gpu], image_lighting=False)
    start_pool(python, setting, "default", timeout=120.0).close()
