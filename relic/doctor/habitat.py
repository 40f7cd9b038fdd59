"""habitat-sim in its own interpreter, what it draws on, and its scenes."""

from __future__ import annotations

import shlex

from relic.doctor.check import Finding, NoAnswer, State, World, ask_probe
from relic.shipped import HABITAT

_START_S = 150.0
_DRIVERS = "sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri"
_HARDWARE = (
    "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all ...  # where the host has a GPU"
)


def check_simulator(world: World) -> list[Finding]:
    """Start the simulator under the interpreter that was named, drawing nothing."""
    make = f"conda env create --prefix habitat-sim --file {shlex.quote(str(HABITAT))}"
    python = world.habitat_python
    if python is None:
        found = "no interpreter named; only scenes of Habitat need it"
        again = world.module("relic.doctor", "--habitat-python", "habitat-sim/bin/python")
        repair = f"{make} && {again}"
        return [Finding("simulator", State.ABSENT, found, repair)]
    try:
        answer = ask_probe(world, "habitat_probe", "simulator", python, timeout=_START_S)
    except NoAnswer as error:
        return [error.finding("simulator", make)]
    problem = answer["error"]
    if problem is None:
        return [Finding("simulator", State.OK, f"habitat-sim starts under {python}")]
    return [Finding("simulator", State.BROKEN, problem, _DRIVERS if "EGL" in problem else make)]


def check_egl(world: World) -> list[Finding]:
    """List the devices that can draw without a display."""
    try:
        answer = ask_probe(world, "egl_probe", timeout=30.0)
    except NoAnswer as error:
        return [error.finding("egl", _DRIVERS, found="the driver fails: {}")]
    devices = answer["devices"]
    if not devices:
        found = f"no device: {answer.get('error', 'EGL lists none')}"
        return [Finding("egl", State.ABSENT, found, _DRIVERS)]
    found = ", ".join(devices)
    if devices == ["software"]:
        return [Finding("egl", State.LIMITED, f"{found}: the CPU draws", _HARDWARE)]
    return [Finding("egl", State.OK, found)]


def check_data(world: World) -> list[Finding]:
    """Look for the paper's scenes, objects and episodes; the project's own houses need none."""
    folder = str(world.data.absolute())
    try:
        answer = ask_probe(world, "habitat_probe", "data", folder, timeout=60.0)
    except NoAnswer as error:
        return [error.finding("datasets", world.pip_project())]
    items = answer["items"]
    wrong = [item for item in items if item["problem"]]
    if not wrong:
        return [Finding("datasets", State.OK, f"all of the paper's are in {folder}/data")]
    listing = world.module("envs.habitat", "check", "--folder", folder)
    if len(wrong) == len(items):
        found = f"none of the paper's in {folder}/data; the project's own houses need none"
        return [Finding("datasets", State.ABSENT, found, f"{listing}  # says how to get each")]
    named = "; ".join(f"{item['name']} {item['problem']}" for item in wrong)
    return [Finding("datasets", State.LIMITED, f"{folder}/data: {named}", wrong[0]["how"])]
