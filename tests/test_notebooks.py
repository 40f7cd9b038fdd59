"""Notebooks run from top to bottom, and ship with what they showed."""

import base64
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "few_shot_imitation.ipynb"
MOST_BYTES = 500_000
PNG = b"\x89PNG"


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        base64.b64decode(output["data"]["image/png"])
        for output in outputs
        if "image/png" in output.get("data", {})
    ]


def text(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_the_notebook_ships_with_its_figures_and_is_small():
    notebook = read()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert len(pictures(notebook)) == 8
    assert all(picture.startswith(PNG) for picture in pictures(notebook))
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert not re.search(r"/(home|root|work|tmp|Users)/", NOTEBOOK.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("run", ["darkroom", "houses_small"])
def test_the_notebook_runs_from_top_to_bottom(run, monkeypatch):
    if not (ROOT / "pretrained" / run).is_dir():
        pytest.skip(f"pretrained/{run} is not there")
    # The kernel is found by its name in the PATH.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shipped, notebook = read(), read()
    (choice,) = [cell for cell in notebook.cells if cell.source.startswith("RUN =")]
    choice.source = f'RUN = "../pretrained/{run}"'
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    assert len(pictures(notebook)) == len(pictures(shipped))
    if run in next(cell.source for cell in shipped.cells if cell.cell_type == "code"):
        # One demonstration is worth more than one own episode, as the text says.
        (difference,) = re.findall(r"after 1: .*difference \S+ \((\S+) to", text(notebook))
        assert float(difference) > 0
