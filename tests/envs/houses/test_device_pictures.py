"""Pictures that are drawn on a device stay there, and are those of the CPU."""

import numpy as np
import pytest

from envs.houses import simulator as simulator_module
from envs.houses.env import HousesVectorEnv
from envs.houses.rendering.renderer import BatchRenderer

OPTIONS = {
    "split": "val",
    "sensors": ["rgb", "depth"],
    "resolution": 16,
    "task": {"max_episode_steps": 4},
    "seed": 3,
}


class DeviceArray:
    """An array with only the methods that one of numba-cuda has and the environment needs."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, index):
        return DeviceArray(self.array[index])

    def copy_to_device(self, other):
        assert isinstance(other, DeviceArray)
        self.array[...] = other.array

    def copy_to_host(self):
        return self.array.copy()


class DeviceRenderer:
    """Draws on the CPU, and hands out arrays of a device."""

    def __init__(self, num_rows, **settings):
        self.renderer = BatchRenderer(num_rows, **settings)
        self.set_scene = self.renderer.set_scene

    def render(self, *pose, out=None, rows=None):
        images = {k: DeviceArray(v) for k, v in self.renderer.render(*pose, rows=rows).items()}
        for name, image in (out or {}).items():
            image.copy_to_device(images[name])
        return images | (out or {})


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setattr(simulator_module, "on_device", DeviceRenderer)
    return lambda renderer, **more: HousesVectorEnv(3, **OPTIONS, renderer=renderer, **more)


@pytest.mark.parametrize("copy", [True, False])
def test_observations_are_those_of_the_cpu(make, copy):
    host, device = make("cpu", copy=copy), make("cuda", copy=copy)
    pairs = [(host.reset()[0], device.reset()[0])]
    kept = pairs[0][1]["rgb"]
    before = kept.copy_to_host()
    for t in range(9):  # over the ends of two episodes
        seen, _, _, _, infos = host.step(np.full(3, 1 + t % 3))
        seen_there, *_, infos_there = device.step(np.full(3, 1 + t % 3))
        pairs.append((seen, seen_there))
        for row in np.flatnonzero(infos.get("_final_obs", np.zeros(3, bool))):
            last, last_there = infos["final_obs"][row], infos_there["final_obs"][row]
            assert all(type(last_there[k]) is type(last[k]) for k in last)
            for name in last:
                np.testing.assert_array_equal(last_there[name], last[name], err_msg=name)
        for name in ("rgb", "depth"):
            assert isinstance(seen_there[name], DeviceArray)
            np.testing.assert_array_equal(seen_there[name].copy_to_host(), seen[name])
        np.testing.assert_array_equal(seen_there["gps"], seen["gps"])
        if t == 0:  # the observation before this one stays whole
            np.testing.assert_array_equal(kept.copy_to_host(), before)
    arrays = {id(there["rgb"]) for _, there in pairs}
    assert len(arrays) == (len(pairs) if copy else 2)


def test_what_cannot_be_drawn_there_is_refused(make):
    with pytest.raises(ValueError, match="renderer must be cpu with the sensor detections"):
        HousesVectorEnv(1, sensors=["detections"], renderer="cuda")
    with pytest.raises(ValueError, match="Did you mean 'cuda'"):
        make("cda")
