"""Trials that can be replayed in a page, episode by episode on the map.

All that is shown is in the page: the map as a picture, positions in hundredths of its unit,
headings in degrees.

Shapes: T steps of an episode, K goals.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from envs.core.vector import TrialVectorEnv
from relic.evaluation.maps import Positions, Track, TrialMap, map_of
from relic.evaluation.records import Record
from relic.measures import label

SCRIPT = Path(__file__).with_name("replay.js")
STYLE = """
:root { --good: #d9efe6; --bad: #f9e0cf; --button: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --good: #0b4a38; --bad: #5c2c08; --button: #232a33; }
}
.replay { max-width: 40rem; }
.replay canvas { display: block; width: 100%; border: 1px solid var(--edge); }
.replay p { margin: .4rem 0; min-height: 1.5em; }
.replay input[type=range] { flex: 1; min-width: 8rem; }
.replay .row { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; margin: .4rem 0; }
.replay button, .replay select { font: inherit; padding: .3rem .6rem; }
.replay .episodes { gap: .25rem; }
.replay .episodes button { min-width: 3rem; border: 2px solid var(--edge); border-radius: .25rem;
                           color: var(--ink); background: var(--button); }
.replay .episodes .good { background: var(--good); }
.replay .episodes .bad { background: var(--bad); }
.replay .episodes [aria-pressed=true] { border-color: var(--ink); font-weight: 700; }
"""
_UNIT = 0.01
_SPEEDS = (5, 10, 20, 60)
_NUMBERS = ("return", "spl")
"""Measures of an episode that are shown with it."""


def replay_data(env: TrialVectorEnv, track: Track, records: Sequence[Record]) -> dict[str, Any]:
    """Return what the page needs to replay one trial.

    Args:
        env: Of one row; it is moved into the trial.
        track: Of the trial.
        records: Of its episodes, in order. Steps of an episode that has none are left out.
    """
    env.reset(options={"new_trial": np.ones(1, bool), "trial": np.array([track.trial])})
    trial_map = map_of(env)
    picture = trial_map.picture()
    left, right, bottom, top = picture.bounds
    house = f", house {records[0]['house']}" if "house" in records[0] else ""
    return {
        "name": f"Trial {track.trial}{house}",
        "map": _embedded(picture.plan.image),
        "left": left,
        "right": right,
        "bottom": bottom,
        "top": top,
        "unit": _UNIT,
        "episodes": [
            _episode(record, pose_T4, trial_map, env.goal_categories)
            for record, pose_T4 in zip(records, track.episodes, strict=False)
        ],
    }


def replay_section(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return the part of a page in which trials are replayed; it needs `STYLE` and `SCRIPT`."""
    # No text in it can end the element that holds it.
    data = json.dumps(trials, separators=(",", ":"), sort_keys=True).replace("</", "<\\/")
    names = "".join(
        f'<option value="{i}">{escape(trial["name"])}</option>' for i, trial in enumerate(trials)
    )
    speeds = "".join(
        f'<option value="{speed}"{" selected" * (speed == 10)}>{speed} steps a second</option>'
        for speed in _SPEEDS
    )
    return f"""<h2>Replay</h2>
<noscript><p>The replay needs JavaScript.</p></noscript>
<div class="replay">
<div class="row"><label>Trial <select id="replay-trial">{names}</select></label>
<label><input type="checkbox" id="replay-earlier" checked> paths of earlier episodes</label></div>
<canvas id="replay-canvas" role="img" aria-label="The agent on the map"></canvas>
<p id="replay-status" aria-live="off"></p>
<p id="replay-outcome"></p>
<div class="row"><button type="button" id="replay-play">Play</button>
<input type="range" id="replay-step" aria-label="step" min="0" value="0">
<select id="replay-speed" aria-label="speed">{speeds}</select></div>
<div class="row">Episodes in order:</div>
<div class="row episodes" id="replay-episodes"></div>
</div>
<script type="application/json" id="replays">{data}</script>"""


def _episode(
    record: Record, pose_T4: Positions, trial_map: TrialMap, categories: tuple[str, ...]
) -> dict[str, Any]:
    x_T, y_T, heading_T, _ = pose_T4.T
    has_heading = not np.isnan(heading_T).any()
    goal = record.get("goal")
    name = None if goal is None or not categories else categories[goal].replace("_", " ")
    return {
        "goal": name,
        "goals": [] if goal is None else _whole(trial_map.goals(goal)),
        "success": record.get("success"),
        "outcome": outcome(record, trial_map.found_after(record, pose_T4)),
        "x": _whole(x_T),
        "y": _whole(y_T),
        "heading": np.rint(np.degrees(heading_T)).astype(int).tolist() if has_heading else None,
    }


def _whole(value: np.ndarray) -> Any:
    return np.rint(value / _UNIT).astype(int).tolist()


def outcome(record: Record, found_after: int | None = None) -> str:
    """Say in a few words how an episode went.

    Args:
        record: Of the episode.
        found_after: Steps after which the goal was first reached, see `TrialMap.found_after`.
            None: it was not, or at an unknown step.
    """
    steps = f"{record['length']} step" + "s" * (record["length"] != 1)
    found = {True: f"found in {steps}", False: f"not found in {steps}", None: steps}
    if record.get("success") and found_after is not None and found_after < record["length"]:
        found[True] = f"first found after {found_after} of {steps}"
    numbers = (f"{label(name)} {_shown(record[name])}" for name in _NUMBERS if name in record)
    return ", ".join([found[record.get("success")], *numbers])


def _shown(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # which turns -0.0 into 0.0


def _embedded(image: np.ndarray) -> str:
    """Return a picture as a data URL."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
