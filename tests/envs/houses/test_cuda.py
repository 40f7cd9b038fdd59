import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from envs.houses.rendering import cuda as rendering_cuda
from envs.houses.rendering.pixel import SHAPE_SIZE
from envs.houses.rendering.renderer import BatchRenderer
from envs.houses.rendering.tables import Atlas, pack
from tests.envs.houses.cuda_simulation import SETTINGS, draw, observe
from tests.envs.houses.random_scenes import random_scene

ROOT = Path(__file__).parents[3]
nvcc = pytest.importorskip("nvidia.cuda_nvcc", reason="make setup installs it")
PTXAS = Path(next(iter(nvcc.__path__))) / "bin" / "ptxas"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
    )


def kernel_arguments() -> dict[str, tuple]:
    """Return arrays of the types that each kernel gets on a device."""
    i4, f4 = np.int32, np.float32
    tables = pack(random_scene(0, pieces=1, rooms=(1, 1)), num_tiles=5)
    atlas = Atlas(np.zeros(3, f4), np.zeros(4, i4), i4(1))
    lists = rendering_cuda.Lists(
        np.zeros((1, 1, 4), i4),
        np.zeros(1, i4),
        np.zeros((1, 1), i4),
        np.zeros((1, 1, 4), i4),
        np.zeros((1, 1, SHAPE_SIZE), f4),
    )
    cameras = rendering_cuda.Cameras(np.zeros(1, np.int64), np.zeros((1, 16), f4), np.zeros(2, i4))
    rgb, label = np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 1, 1), np.int16)
    images = rendering_cuda.Images(rgb, np.zeros((1, 1, 1), f4), label, label)
    return {
        "cull": (tables, cameras, lists),
        "draw": (tables, cameras, lists, atlas, images),
        "average": (rgb, rgb),
    }


def test_simulated_device_draws_what_the_cpu_draws(tmp_path):
    file = tmp_path / "images.npz"
    done = run(
        "-m", "tests.envs.houses.cuda_simulation", str(file),
        NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    simulated = np.load(file)
    expected = draw(BatchRenderer(2, **SETTINGS), lambda image: image)
    observed = observe("cpu")
    assert set(simulated) == {*expected, *observed}
    seen = np.unique([image for name, image in expected.items() if name.endswith("semantic")])
    assert len(seen) > 8  # the pictures show more than walls
    assert any(image.any() for name, image in expected.items() if name.endswith("instance"))
    for name, image in (expected | observed).items():
        np.testing.assert_array_equal(simulated[name], image, err_msg=name)
    assert (observed["before rgb"][1] != observed["one row rgb"][1]).any()
    assert (observed["one row rgb"][0] != observed["after rgb"][0]).any()


@pytest.mark.parametrize("name", ["cull", "draw", "average"])
def test_kernels_compile_for_sm_90_in_single_precision(name, tmp_path, monkeypatch):
    # The compiler asks the present device for its architecture, whatever it is told to build for.
    monkeypatch.setattr(
        sys.modules["numba.cuda.dispatcher"],
        "get_current_device",
        lambda: SimpleNamespace(compute_capability=(9, 0)),
    )
    types = tuple(numba.typeof(value) for value in kernel_arguments()[name])
    ptx, _ = rendering_cuda.cuda.compile_ptx(getattr(rendering_cuda, name), types, cc=(9, 0))
    assert ".target sm_90" in ptx
    assert not re.findall(r"\.f64\b", ptx)
    source, binary = tmp_path / "kernel.ptx", tmp_path / "kernel.cubin"
    source.write_text(ptx)
    done = subprocess.run(
        [PTXAS, "-arch=sm_90", "-v", source, "-o", binary], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert binary.stat().st_size > 0
    assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr


def test_without_numba_cuda_one_sentence_says_what_to_install():
    done = run(
        "-c",
        "import sys; sys.modules['numba_cuda'] = None; import envs.houses.rendering.cuda",
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        "ImportError: CudaBatchRenderer: numba-cuda must be installed. "
        "Run: pip install 'numba-cuda>=0.30'"
    )


def test_without_a_device_one_sentence_says_what_to_use():
    program = "from envs.houses.rendering.cuda import CudaBatchRenderer as R; R(1)"
    done = run("-c", program, CUDA_VISIBLE_DEVICES="")
    assert done.returncode != 0
    assert "a CUDA device must be available, found none. Use BatchRenderer" in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not rendering_cuda.cuda.is_available(), reason="no CUDA device")
def test_a_device_draws_what_the_cpu_draws():
    from envs.houses.rendering.cuda import CudaBatchRenderer

    settings = {**SETTINGS, "width": 64, "height": 64}
    device = draw(CudaBatchRenderer(2, **settings), lambda image: image.copy_to_host())
    host = draw(BatchRenderer(2, **settings), lambda image: image)
    allowed = {"rgb": 2.0, "depth": 1e-3, "semantic": 0.0, "instance": 0.0}
    for name, image in host.items():
        # A GPU fuses multiplications with additions, which may move an edge across a pixel.
        off = np.abs(device[name].astype(float) - image) > allowed[name.split()[1]]
        assert off.mean() < 1e-3, name
