"""One command runs every benchmark, whatever becomes of the others."""

import json

import pytest


@pytest.fixture
def run_all(monkeypatch, tmp_path):
    import run_all

    scripts = {
        "good": 'print(\'a table\')\nprint(\'{"benchmark": "good", "results": [1]}\')',
        "broken": "raise SystemExit(3)",
        "silent": "print('no object')",
        "absent": "",
        "later": "import sys\nprint('{\"asked\": \"' + ' '.join(sys.argv[1:]) + '\"}')",
    }
    for name, text in scripts.items():
        (tmp_path / f"{name}.py").write_text(text)
    made = {name: run_all.Benchmark(f"{name}.py", ("--full",)) for name in scripts}
    made["absent"] = run_all.Benchmark("absent.py", needs=("no_such_package",))
    monkeypatch.setattr(run_all, "BENCHMARKS", made)
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    return run_all


def test_failures_are_named_and_the_others_go_on(run_all, tmp_path, capfd):
    assert run_all.main(["--results", str(tmp_path / "results")]) == 1
    out, err = capfd.readouterr()
    assert "a table" in out
    assert "absent: skipped, no_such_package is not installed" in out
    assert err.splitlines()[-1] == "failed: broken, silent"
    written = {path.stem for path in (tmp_path / "results").iterdir()}
    assert written == {"good", "later"}
    assert json.loads((tmp_path / "results" / "good.json").read_text())["results"] == [1]


def test_quick_replaces_the_options(run_all, tmp_path):
    for arguments, asked in (([], "--full"), (["--quick"], "--quick")):
        assert run_all.main(["--only", "later", "--results", str(tmp_path), *arguments]) == 0
        assert json.loads((tmp_path / "later.json").read_text())["asked"] == asked


def test_every_benchmark_is_run(benchmarks):
    import run_all

    listed = {benchmark.script for benchmark in run_all.BENCHMARKS.values()}
    helpers = {"bench_others.py"}
    assert {p.name for p in benchmarks.glob("bench_*.py")} - helpers <= listed
    assert all((benchmarks / script).is_file() for script in listed)
