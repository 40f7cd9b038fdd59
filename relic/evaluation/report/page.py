"""The page about one evaluation, in one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from relic.evaluation.curves import varies
from relic.evaluation.report.html import details, document, picture, table
from relic.evaluation.report.replay import SCRIPT, STYLE, replay_section
from relic.evaluation.report.text import CONTROL_WORDS, at, controls_of, estimate, points
from relic.evaluation.worth import PARTS
from relic.files import write_text
from relic.measures import label, number
from relic.schema import leaves

_PARTS = ("mean", "low", "high")
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
    "crashed": "Episodes that crashed",
    "context_limit": "Limit of the context",
    "trained_steps": "Steps of a trial in training",
}
_EXPLAINED = {
    "cleared": "before each episode the agent forgets all earlier ones, so nothing can be learned "
    "from them. What it gains here, it does not gain from its context.",
    "shuffled": "before each episode the earlier ones of the trial are put into another order, "
    "each whole. If order does not matter, this curve is the agent's.",
    "foreign": "before each episode the agent remembers as many episodes, but those that it had in "
    "a trial in another place. What it gains here does not depend on the place.",
}
_GROUPS = {"by_area": ("size of the house", "houses"), "by_goal": ("goal category", "goal")}


def write_report(
    summary: Mapping[str, Any],
    plots: Sequence[Path],
    path: Path,
    *,
    run: str,
    replays: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the page.

    Args:
        summary: Of the evaluation.
        plots: Pictures, named by measure; they are embedded.
        path: The file.
        run: What the evaluated run is called.
        replays: Trials to be replayed, see `replay.replay_data`.
    """
    write_text(path, page(summary, plots, replays, run=run))


def page(
    summary: Mapping[str, Any],
    plots: Sequence[Path],
    replays: Sequence[Mapping[str, Any]] = (),
    *,
    run: str,
) -> str:
    """Return the page as text."""
    pictures = {path.stem: path for path in plots}
    sections = [
        "<p>Each curve shows a measure against the number of episodes that the agent has in its "
        "context. Bands are 95 % bootstrap intervals over houses or trials.</p>",
        _controls(summary),
        _constants(summary),
        *_worth(summary),
        *([replay_section(replays)] if replays else []),
        "<h2>Gain</h2>",
        _gains(summary),
    ]
    for name, curve in summary["metrics"].items():
        if not varies([curve]):
            continue
        sections.append(f"<h2>{escape(label(name))}</h2>")
        if name in pictures:
            text = f"{label(name)} against the number of episodes in the context"
            sections.append(picture(pictures[name], text))
        sections.append(details("Numbers", _numbers(curve, name) + _download(name, curve)))
        sections += [_group(summary, kind, name, pictures) for kind in _GROUPS]
    sections += ["<h2>How it was measured</h2>", _facts(summary)]
    title = f"{run}: {summary['protocol']}"
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


def _constants(summary: Mapping[str, Any]) -> str:
    """Say which measures never vary; they get neither a plot nor a table."""
    same = [
        f"{label(name)} ({next((v for v in curve['mean'] if v is not None), 0.0):g})"
        for name, curve in summary["metrics"].items()
        if not varies([curve])
    ]
    if not same:
        return ""
    return f"<p>Always the same, and therefore without a plot: {escape(', '.join(same))}.</p>"


def _worth(summary: Mapping[str, Any]) -> list[str]:
    """Show what the context is worth; nothing where no control cleared it."""
    worth = summary.get("context", {})
    if not worth:
        return []
    others = [control for control in _all_controls(summary) if control != "cleared"]
    rows = []
    for name, entry in worth.items():
        against = [{k: entry.get(f"{c}_{k}") for k in ("mean", "low", "high")} for c in others]
        shown = [points(estimate(part, name)) if part else "-" for part in (entry, *against)]
        kept, cleared = (number(entry[k], name) for k in ("kept", "cleared"))
        oracle = []
        if "oracle" in entry:
            oracle = [number(entry["oracle"], name), number(entry["share_of_oracle"])]
        rows.append([label(name), kept, cleared, *shown, *oracle])
    first = next(iter(worth.values()))
    begin = first["from_episode"]
    explained = (
        f"Each trial's mean over its episodes from index {begin} on, minus the same with the "
        "context cleared: same trials, same acting noise, paired by trial, with 95 % intervals. A "
        "curve that rises with the index is no evidence; this difference is."
    )
    head = [
        "measure", "kept", "cleared", "kept minus cleared",
        *(f"{CONTROL_WORDS[control]} minus cleared" for control in others),
        *(("memory oracle", "share of its margin") if "oracle" in first else ()),
    ]  # fmt: skip
    shown = [
        "<h2>What the context is worth</h2>",
        f"<p>{explained}</p>",
        table(head, rows, "cards"),
    ]
    return [*shown, _worth_by_goal(worth)]


def _worth_by_goal(worth: Mapping[str, Any]) -> str:
    """Show what the context is worth by when its goal was asked for and seen before."""
    rows = [
        [
            label(name),
            part.replace("_", " "),
            *(number(entry[part][k], name) for k in ("kept", "cleared")),
            points(estimate(entry[part], name)),
        ]
        for name, entry in worth.items()
        for parts in PARTS.values()
        for part in parts
        if part in entry and entry[part]["mean"] is not None
    ]
    if not rows:
        return ""
    head = ["measure", "episodes whose goal was", "kept", "cleared", "kept minus cleared"]
    return details("By when the goal was asked for and in view before", table(head, rows))


def _gains(summary: Mapping[str, Any]) -> str:
    controls = _all_controls(summary)
    rows = []
    for name, gain in summary["gain"].items():
        competence = summary["episodes_to_competence"].get(name)
        rows.append(
            [
                label(name),
                f"{gain['from_episode']} to {gain['to_episode']}",
                points(estimate(gain, name)),
                *(points(number(gain.get(f"{control}_mean"), name)) for control in controls),
                number(summary["area"][name]["mean"], name),
                "-" if competence is None else str(competence),
            ]
        )
    head = [
        "measure", "episodes", "gain and 95 % interval",
        *(f"gain, {CONTROL_WORDS[control]}" for control in controls),
        "mean over episodes", "episodes to 90 % of best",
    ]  # fmt: skip
    return table(head, rows, "cards")


def _numbers(curve: Mapping[str, Any], measure: str) -> str:
    controls = controls_of(curve)
    head = [
        "episodes",
        "mean and 95 % interval",
        "trials, with repeats",
        *(CONTROL_WORDS[c] for c in controls),
    ]
    rows = []
    for i, count in enumerate(curve["count"]):
        own, *others = (
            estimate({k: at(curve[f"{prefix}{k}"], i) for k in _PARTS}, measure)
            for prefix in _prefixes(curve)
        )
        rows.append([str(i), own, str(count), *others])
    return table(head, rows)


def _download(measure: str, curve: Mapping[str, Any]) -> str:
    """Return a link that saves a measure's curves as a CSV file; shares stay between 0 and 1."""
    columns = [f"{prefix}{part}" for prefix in _prefixes(curve) for part in _PARTS]
    lines = [",".join(["episodes", "trials_with_repeats", *columns])]
    for i, count in enumerate(curve["count"]):
        values = (at(curve[column], i) for column in columns)
        lines.append(
            ",".join([str(i), str(count), *("" if v is None else repr(v) for v in values)])
        )
    data = base64.b64encode("\n".join([*lines, ""]).encode()).decode()
    return f'<p><a download="{measure}.csv" href="data:text/csv;base64,{data}">CSV</a></p>'


def _prefixes(curve: Mapping[str, Any]) -> list[str]:
    """Return what the names of the curve's parts begin with: its own, then each control's."""
    return ["", *(f"{control}_" for control in controls_of(curve))]


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
        early, late = (estimate(values["metrics"][name][band], name) for band in ("early", "late"))
        rows.append([part.replace("_", " "), str(values["episodes"]), early, late])
    titles = [head, "episodes", "first quarter", "last quarter"]
    return details(f"By {title}", content + table(titles, rows, "cards"))


def _facts(summary: Mapping[str, Any]) -> str:
    return table([], [[text, _fact(summary.get(key))] for key, text in _FACTS.items()], "facts")


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{key}={_fact(content)}" for key, content in leaves(value).items())
    if value is None or value == {}:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
