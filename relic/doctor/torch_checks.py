"""PyTorch, CUDA and the attention backends, tried in a process of their own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

from relic.doctor.check import Finding, NoAnswer, State, World, ask_probe

_TIMEOUT_S = 180.0
"""Kernels may have to be compiled first."""
_OLDER_CUDA = "https://download.pytorch.org/whl/cu126"
"""Where builds are that older drivers can run."""


def check_torch(world: World) -> list[Finding]:
    """Ask PyTorch what it can do."""
    try:
        answer = ask_probe(world, "torch_probe", timeout=_TIMEOUT_S)
    except NoAnswer as error:
        repair = world.pip("--force-reinstall", "torch")
        return [error.finding("torch", repair, found="does not work: {}")]
    build = f"CUDA {answer['built_for']}" if answer["built_for"] else "no CUDA"
    found = f"{answer['version']}, built for {build}, {answer['threads']} CPU threads"
    torch = Finding("torch", State.OK, found)
    return [torch, _cuda(world, answer), _attention(world, answer), _flash(world, answer)]


def gpus() -> list[str]:
    """Return the NVIDIA GPUs that the system has, whatever PyTorch says."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [p.name for p in Path("/proc/driver/nvidia/gpus").glob("*")]
    said = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30)
    return [line for line in said.stdout.splitlines() if line.startswith("GPU")]


def _cuda(world: World, answer: dict[str, Any]) -> Finding:
    devices = answer["cuda"]["devices"]
    if devices:
        return Finding("cuda", State.OK, "; ".join(devices))
    there = gpus()
    if not there:
        inside = Path("/.dockerenv").exists()
        repair = "docker run --gpus all ...  # where the host has one" if inside else None
        return Finding("cuda", State.ABSENT, "no NVIDIA GPU; the CPU computes", repair)
    version = answer["version"].partition("+")[0]
    if answer["built_for"] is None:
        found = f"{len(there)} GPU, but PyTorch is built without CUDA"
        repair = world.pip("--force-reinstall", f"torch=={version}")
        return Finding("cuda", State.BROKEN, found, repair)
    found = f"{len(there)} GPU, but PyTorch cannot use it: {answer['cuda']['error']}"
    repair = world.pip("--force-reinstall", f"torch=={version}", "--index-url", _OLDER_CUDA)
    return Finding("cuda", State.BROKEN, found, repair)


def _attention(world: World, answer: dict[str, Any]) -> Finding:
    results = {k: v for k, v in answer["attention"].items() if k != "flash"}
    working = [name for name, result in results.items() if result == "ok"]
    wrong = [f"{name}: {result}" for name, result in results.items() if result != "ok"]
    found = f"on {answer['device']}: {', '.join(working)}"
    if not wrong:
        return Finding("attention", State.OK, found)
    state = State.LIMITED if "auto" in working else State.BROKEN
    return Finding(
        "attention", state, "; ".join([found, *wrong]), world.pip("--force-reinstall", "numba")
    )


def _flash(world: World, answer: dict[str, Any]) -> Finding:
    result = answer["attention"].get("flash")
    repair = world.pip("flash-attn", "--no-build-isolation")
    if result == "ok":
        return Finding("flash-attn", State.OK, "works")
    if result is None:
        installed = importlib.util.find_spec("flash_attn") is not None
        found = "installed, but needs CUDA" if installed else "needs CUDA; auto does without it"
        return Finding("flash-attn", State.ABSENT, found)
    if result.startswith("ImportError"):
        found = "not installed; auto does without it"
        return Finding("flash-attn", State.ABSENT, found, repair)
    return Finding("flash-attn", State.BROKEN, result, repair)
