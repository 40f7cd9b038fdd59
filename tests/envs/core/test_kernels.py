"""Compiled kernels notice when a file that they are built from has changed."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from envs.core.kernels import source_fingerprint

KERNEL = """
from numba import njit
import lent
from envs.core.kernels import source_fingerprint

def build(fingerprint):
    @njit(cache=True)
    def kernel():
        return lent.number(), fingerprint
    return kernel

print(build(source_fingerprint(lent))()[0])
"""


def module_at(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


def test_a_cached_kernel_follows_the_functions_that_other_files_lend_it(tmp_path: Path) -> None:
    main, lent = tmp_path / "main.py", tmp_path / "lent.py"
    main.write_text(KERNEL)
    printed = []
    for number in (1, 22):
        lent.write_text(f"from numba import njit\n@njit\ndef number():\n    return {number}\n")
        run = subprocess.run(
            [sys.executable, str(main)],
            cwd=Path(__file__).parents[3],
            env={"PYTHONPATH": f"{Path(__file__).parents[3]}:{tmp_path}"},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(run.stdout.strip())
    assert printed == ["1", "22"]


def test_a_package_stands_for_its_files(tmp_path: Path) -> None:
    package = ModuleType("package")
    package.__path__ = [str(tmp_path)]
    (tmp_path / "b.py").write_text("b = 1\n")
    (tmp_path / "a.py").write_text("a = 1\n")
    before = source_fingerprint(package)
    assert before == source_fingerprint(*map(module_at, sorted(tmp_path.glob("*.py"))))
    (tmp_path / "b.py").write_text("b = 2\n")
    assert source_fingerprint(package) != before
