"""habitat-sim in its own interpreter, and what it draws on."""

from __future__ import annotations

import shlex

from relic.doctor.child import NoAnswer, ask
from relic.doctor.finding import Finding, State, World

_START_S = 150.0
_DRIVERS = "sudo apt-get install -y libegl1 libegl-mesa0 libgl1-mesa-dri"
_HARDWARE = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all ..."


def check_simulator(world: World) -> list[Finding]:
    """Start the simulator under the interpreter that was named, drawing nothing."""
    environment = shlex.quote(str(world.source / "docker" / "habitat.yaml"))
    make = f"conda env create --prefix habitat-sim --file {environment}"
    python = world.habitat_python
    if python is None:
        found = "no interpreter named; only scenes of Habitat need it"
        repair = f"{make} && python -m relic.doctor --habitat-python habitat-sim/bin/python"
        return [Finding("simulator", State.ABSENT, found, repair)]
    try:
        answer = ask(
            world.python,
            ["-m", "relic.doctor.habitat_probe", python],
            timeout=_START_S,
            environment=world.environment,
            cwd=world.source,
        )
    except NoAnswer as error:
        return [Finding("simulator", State.BROKEN, str(error), make)]
    problem = answer["error"]
    if problem is None:
        return [Finding("simulator", State.OK, f"habitat-sim starts under {python}")]
    return [Finding("simulator", State.BROKEN, problem, _DRIVERS if "EGL" in problem else make)]


def check_egl(world: World) -> list[Finding]:
    """List the devices that can draw without a display."""
    try:
        answer = ask(
            world.python,
            ["-m", "relic.doctor.egl_probe"],
            timeout=30.0,
            environment=world.environment,
            cwd=world.source,
        )
    except NoAnswer as error:
        return [Finding("egl", State.BROKEN, f"the driver fails: {error}", _DRIVERS)]
    devices = answer["devices"]
    if not devices:
        found = f"no device: {answer.get('error', 'EGL lists none')}"
        return [Finding("egl", State.ABSENT, found, _DRIVERS)]
    found = ", ".join(devices)
    if devices == ["software"]:
        return [Finding("egl", State.LIMITED, f"{found}: the CPU draws", _HARDWARE)]
    return [Finding("egl", State.OK, found)]
