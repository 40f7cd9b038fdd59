"""One self-contained HTML page about an evaluation: curves, gains, numbers, protocol."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from relic.evaluation.plots import label

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem;
       color: #1c2430; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #d8dde4;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.facts td:last-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
"""
_FACTS = {
    "protocol": "Protocol",
    "protocol_hash": "Protocol hash",
    "env": "Environment",
    "options": "Options",
    "checkpoint": "Checkpoint",
    "env_steps": "Environment steps trained",
    "trained_on": "Trials were trained on",
    "trials": "Trials",
    "repeats": "Repeats of each",
    "episodes": "Episodes",
}


def write_report(summary: Mapping[str, Any], plots: Sequence[Path], path: Path) -> None:
    """Write the page.

    Args:
        summary: Of the evaluation.
        plots: Pictures, named by measure; they are embedded.
        path: The file.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page(summary, plots), encoding="utf-8")
    temporary.replace(path)


def page(summary: Mapping[str, Any], plots: Sequence[Path]) -> str:
    """Return the page as text."""
    pictures = {path.stem: path for path in plots}
    title = f"Evaluation: {summary['protocol']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        "<p>Each curve shows a measure against the number of episodes that the agent has in its "
        "context. Bands are 95 % bootstrap intervals over houses or trials. In the control the "
        "context is cleared before each episode, so that nothing can be learned from earlier "
        "ones.</p>",
        "<h2>Gain</h2>",
        _gains(summary),
    ]
    for name, curve in summary["metrics"].items():
        sections.append(f"<h2>{escape(label(name))}</h2>")
        if name in pictures:
            data = base64.b64encode(pictures[name].read_bytes()).decode()
            text = escape(f"{label(name)} against the number of episodes in the context")
            sections.append(f'<img alt="{text}" src="data:image/png;base64,{data}">')
        sections.append(_numbers(curve))
    sections += ["<h2>How it was measured</h2>", _facts(summary)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _gains(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, gain in summary["gain"].items():
        competence = summary["episodes_to_competence"].get(name)
        rows.append(
            [
                label(name),
                f"{gain['from_episode']} to {gain['to_episode']}",
                _number(gain["mean"]),
                _interval(gain["low"], gain["high"]),
                _number(gain["cleared_mean"]),
                _number(summary["area"][name]["mean"]),
                "-" if competence is None else str(competence),
            ]
        )
    head = [
        "measure", "episodes", "gain", "95 % interval", "gain, context cleared",
        "mean over episodes", "episodes to 90 % of best",
    ]  # fmt: skip
    return _table(head, rows)


def _numbers(curve: Mapping[str, Any]) -> str:
    has_control = "cleared_mean" in curve
    head = ["episodes in context", "mean", "95 % interval", "trials"]
    head += ["context cleared", "95 % interval"] * has_control
    rows = []
    for i, mean in enumerate(curve["mean"]):
        row = [str(i), _number(mean), _interval(curve["low"][i], curve["high"][i])]
        row.append(str(curve["count"][i]))
        if has_control and i < len(curve["cleared_mean"]):
            interval = _interval(curve["cleared_low"][i], curve["cleared_high"][i])
            row += [_number(curve["cleared_mean"][i]), interval]
        rows.append(row)
    return f"<details><summary>Numbers</summary>{_table(head, rows)}</details>"


def _facts(summary: Mapping[str, Any]) -> str:
    rows = [[text, str(summary[key])] for key, text in _FACTS.items()]
    return _table([], rows, kind="facts")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "numbers") -> str:
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    top = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return f'<div class="wide"><table class="{kind}">{top}<tbody>\n{body}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return f"{_number(low)} to {_number(high)}"
