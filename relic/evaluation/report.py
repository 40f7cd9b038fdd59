"""One self-contained HTML page about an evaluation: curves, gains, numbers, protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from relic.evaluation.html import details, document, picture, table
from relic.evaluation.plots import label
from relic.evaluation.replay import SCRIPT, STYLE, replay_section
from relic.evaluation.store import write_text
from relic.evaluation.text import CONTROL_WORDS, at, controls_of, estimate, number
from relic.schema import leaves

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
    "context_limit": "Limit of the context",
    "trained_steps": "Steps of a trial in training",
}
_EXPLAINED = {
    "cleared": "before each episode the agent forgets all earlier ones, so nothing can be learned "
    "from them. What it gains here, it does not gain from its context.",
    "shuffled": "before each episode the earlier ones of the trial are put into another order, "
    "each whole. If order does not matter, this curve is the agent's.",
    "foreign": "before each episode the agent remembers as many episodes, but those that it had in "
    "another trial. What it gains here does not depend on the place.",
}
_GROUPS = {"by_area": ("size of the house", "houses"), "by_goal": ("goal category", "goal")}


def write_report(
    summary: Mapping[str, Any],
    plots: Sequence[Path],
    path: Path,
    *,
    replays: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page.

    Args:
        summary: Of the evaluation.
        plots: Pictures, named by measure; they are embedded.
        path: The file.
        replays: Trials to be replayed, see `replay.replay_data`.
    """
    write_text(path, page(summary, plots, replays))


def page(
    summary: Mapping[str, Any],
    plots: Sequence[Path],
    replays: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page as text."""
    pictures = {path.stem: path for path in plots}
    sections = [
        "<p>Each curve shows a measure against the number of episodes that the agent has in its "
        "context. Bands are 95 % bootstrap intervals over houses or trials.</p>",
        _controls(summary),
        "<h2>Gain</h2>",
        _gains(summary),
    ]
    for name, curve in summary["metrics"].items():
        sections.append(f"<h2>{escape(label(name))}</h2>")
        if name in pictures:
            text = f"{label(name)} against the number of episodes in the context"
            sections.append(picture(pictures[name], text))
        sections.append(details("Numbers", _numbers(curve)))
        sections += [_group(summary, kind, name, pictures) for kind in _GROUPS]
    if replays:
        sections.append(replay_section(replays))
    sections += ["<h2>How it was measured</h2>", _facts(summary)]
    title = f"Evaluation: {summary['protocol']}"
    if not replays:
        return document(title, sections)
    return document(title, sections, style=STYLE, script=SCRIPT.read_text(encoding="utf-8"))


def _controls(summary: Mapping[str, Any]) -> str:
    """Explain the controls that there are."""
    return "".join(
        f"<p><b>{escape(CONTROL_WORDS[control]).capitalize()}</b>: {_EXPLAINED[control]}</p>"
        for control in _all_controls(summary)
    )


def _all_controls(summary: Mapping[str, Any]) -> list[str]:
    curves = summary["metrics"].values()
    return list(dict.fromkeys(control for curve in curves for control in controls_of(curve)))


def _gains(summary: Mapping[str, Any]) -> str:
    controls = _all_controls(summary)
    rows = []
    for name, gain in summary["gain"].items():
        competence = summary["episodes_to_competence"].get(name)
        rows.append(
            [
                label(name),
                f"{gain['from_episode']} to {gain['to_episode']}",
                estimate(gain),
                *(number(gain.get(f"{control}_mean")) for control in controls),
                number(summary["area"][name]["mean"]),
                "-" if competence is None else str(competence),
            ]
        )
    head = [
        "measure", "episodes", "gain and 95 % interval",
        *(f"gain, {CONTROL_WORDS[control]}" for control in controls),
        "mean over episodes", "episodes to 90 % of best",
    ]  # fmt: skip
    return table(head, rows, "cards")


def _numbers(curve: Mapping[str, Any]) -> str:
    controls = controls_of(curve)
    head = ["episodes", "mean and 95 % interval", "trials", *(CONTROL_WORDS[c] for c in controls)]
    rows = []
    for i, count in enumerate(curve["count"]):
        own, *others = (
            estimate({k: at(curve[f"{prefix}{k}"], i) for k in ("mean", "low", "high")})
            for prefix in ("", *(f"{control}_" for control in controls))
        )
        rows.append([str(i), own, str(count), *others])
    return table(head, rows)


def _group(summary: Mapping[str, Any], kind: str, name: str, pictures: Mapping[str, Path]) -> str:
    """Show a measure of parts of the trials, folded; nothing where the summary has no parts."""
    parts = summary.get(kind, {})
    if not any(name in part["metrics"] for part in parts.values()):
        return ""
    title, head = _GROUPS[kind]
    content = ""
    if f"{name}_{kind}" in pictures:
        content += picture(pictures[f"{name}_{kind}"], f"{label(name)} by {title}")
    rows = []
    for part, values in parts.items():
        early, late = (estimate(values["metrics"][name][band]) for band in ("early", "late"))
        rows.append([part.replace("_", " "), str(values["episodes"]), early, late])
    titles = [head, "episodes", "first quarter", "last quarter"]
    return details(f"By {title}", content + table(titles, rows, "cards"))


def _facts(summary: Mapping[str, Any]) -> str:
    return table([], [[text, _fact(summary[key])] for key, text in _FACTS.items()], "facts")


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_fact(content)}" for key, content in leaves(value).items())
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
