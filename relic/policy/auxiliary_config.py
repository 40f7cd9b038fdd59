"""Configurations of the auxiliary heads.

They need no torch until a head is built: a command line is checked before that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from relic.policy.encoders.config import GOAL_PLACES, GOAL_RECALL
from relic.schema import POSITIVE, at_least, check_bounds

if TYPE_CHECKING:
    from gymnasium import spaces

    from relic.policy.auxiliary import AuxiliaryHead
    from relic.policy.encoders.config import EncoderConfig
    from relic.policy.goal_location import GoalLocationHead
    from relic.policy.recall import RecallHead

LEAST_EVIDENCE = 4.0
"""Evidence from which a frozen encoder is nearly always right."""
GOAL_SEEN = "goal_detection"
"""What environments of this project call the goal's part of what is in view."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuxiliaryConfig(ABC):
    """The section of a head in the configuration of a policy."""

    weight: Annotated[float, at_least(0)]
    """Weight of the head's losses beside those of action and value."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_bounds(self)

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Observations that the head learns from: a rollout keeps them, no token holds them."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Observations that the head reads beside the memory's output."""
        return ()

    @property
    def lesson_weight(self) -> float:
        """Weight of the same losses on the head's lesson (`AuxiliaryHead.lesson`); 0: none."""
        return 0.0

    @property
    def no_inputs(self) -> dict[str, str]:
        """Observations that no token may hold beside this head, each with what to set if one does.

        A lesson could not change them, and they would go on telling what was so before it.
        """
        return {}

    def check_encoder(self, encoder: EncoderConfig) -> None:  # noqa: B027 - few heads need one
        """Check what the head needs of the policy's encoder.

        Raises:
            ValueError: If the encoder cannot give it.
        """

    @abstractmethod
    def build(self, space: spaces.Dict, width: int) -> AuxiliaryHead:
        """Return the head.

        Args:
            space: Space of one row's observation.
            width: E.

        Raises:
            ValueError: If an observation is missing or has another shape.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceConfig(AuxiliaryConfig):
    """The guess of a place, from which the heads of action and value are told a direction."""

    weight: Annotated[float, at_least(0)] = 0.03
    """Weight of its loss. At this weight the norm of the gradient of `goal_location` is about that
    of all other losses; at 0.2 it is ten times as large."""
    target: str
    """Observation of the place; it is never an input."""
    position: str = "gps"
    """Observed position (forward, right), in the frame and the unit of the places."""
    heading: str = "compass"
    """Observed heading in radians, counter-clockwise in that frame."""
    scale: Annotated[float, POSITIVE] = 5.0
    """A large distance, in the unit of the places; predicted distances are scaled by it."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The observation of the place."""
        return (self.target,)

    @property
    def reads(self) -> tuple[str, ...]:
        """Position and heading, by which a guess becomes a direction."""
        return (self.position, self.heading)

    def check(self, space: spaces.Dict, size: int, *, section: str) -> None:
        """Check that the observations are there, `size` numbers of the target.

        Raises:
            ValueError: If one is missing or has another shape.
        """
        option = GOAL_PLACES if section == "goal_location" else GOAL_RECALL
        shown_by = f"env.options.{option}=true and env.options.compass=true"
        for key, wanted in ((self.target, size), (self.position, 2), (self.heading, 1)):
            _check_observed(space, key, wanted, section=section, shown_by=shown_by)


@dataclass(frozen=True, kw_only=True, slots=True)
class GoalLocationConfig(PlaceConfig):
    """The head that predicts where the goal is."""

    target: str = GOAL_PLACES
    """Observation, (K, 2), of where the goal's instances lie; it is never an input."""

    def build(self, space: spaces.Dict, width: int) -> GoalLocationHead:
        """Return the head, if the observations that it needs are there."""
        from relic.policy.goal_location import GoalLocationHead  # needs torch

        self.check(space, 2, section="goal_location")
        return GoalLocationHead(self, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallConfig(PlaceConfig):
    """The head that predicts where the goal was last in view."""

    target: str = GOAL_RECALL
    """Observation, (3,): whether the goal was in view in this trial, and where it was last. It is
    never an input."""
    relabelled: Annotated[float, at_least(0)] = 0.0
    """Weight of the same loss in one more pass of a rollout's last update, and of every full one,
    in which each step asks for another category that was in view before in the trial. A trial then
    asks for hundreds of places instead of one an episode. 0: no such pass."""
    least_pixels: Annotated[int, at_least(1)] = 1
    """Pixels from which a category counts as in view for such questions. An encoder of pictures
    cannot see the smallest objects, and questions about them teach nothing."""
    goal: str = "goal"
    """Observed category that is asked for."""
    seen: str | None = "detections"
    """Observation of what is in view: of each category a flag, pixels, metres ahead and right; only
    the lesson reads it. Null: what was in view, and where, is what the agent's own frozen encoder
    found (`encoder.sightings`). The environment then answers nothing, and `target` is not read."""
    goal_seen: str | None = GOAL_SEEN
    """Observation of the goal alone: a flag, metres ahead and right, and its place. Null where the
    agent sees pictures: what is in view then only answers questions, and is never an input."""
    least_evidence: Annotated[float, POSITIVE] = LEAST_EVIDENCE
    """Evidence from which a category counts as in view where `seen` is null. At the default,
    `pretrained/houses_encoder` is right in 93 % of what it finds (benchmarks/sightings.py)."""

    def __post_init__(self) -> None:
        """Check the ranges, and that nothing is set which is not read."""
        AuxiliaryConfig.__post_init__(self)
        unread = {"target": GOAL_RECALL, "goal_seen": None, "least_pixels": 1}
        if self.seen is not None:
            unread = {"least_evidence": LEAST_EVIDENCE}
        for name, unset in unread.items():
            value = getattr(self, name)
            if value != unset:
                raise ValueError(
                    f"{name}: must be {'null' if unset is None else unset} where seen is "
                    f"{self.seen or 'null'}, got {value}. It would not be read; leave it out, or "
                    f"{'name an observation by seen' if self.seen is None else 'set seen=null'}."
                )

    @property
    def lesson_weight(self) -> float:
        """Weight of the pass with other goals."""
        return self.relabelled

    @property
    def targets(self) -> tuple[str, ...]:
        """The place, and without detections as inputs those, too."""
        if self.seen is None:
            return ()
        return (self.target, self.seen) if self._is_told_what_is_seen else (self.target,)

    @property
    def reads(self) -> tuple[str, ...]:
        """Position and heading; to ask for other goals, what is in view."""
        own = (self.position, self.heading)
        if self.seen is None:
            return (*own, self.goal)
        if not self.relabelled:
            return own
        return (*own, self.goal, *((self.seen, self.goal_seen) if self.goal_seen else ()))

    @property
    def no_inputs(self) -> dict[str, str]:
        """What tells where the goal is, while the lesson asks for another."""
        if not self._is_told_what_is_seen:
            return {}
        instead = "relabelled=0" if self.seen is None else f"goal_seen={GOAL_SEEN}"
        return {GOAL_SEEN: f"policy.recall.{instead}"}

    @property
    def _is_told_what_is_seen(self) -> bool:
        return self.relabelled > 0 and self.goal_seen is None

    def build(self, space: spaces.Dict, width: int) -> RecallHead:
        """Return the head, if the observations that it needs are there."""
        from relic.policy.recall import RecallHead  # needs torch

        if self.seen is not None:
            self.check(space, 3, section="recall")
        if self.seen is None or self.relabelled:
            self._check_goal(space.spaces.get(self.goal))
        if self.seen is not None and self.relabelled:
            self._check_detections(space)
        return RecallHead(self, width)

    def check_encoder(self, encoder: EncoderConfig) -> None:
        """Check that the encoder can say what was in view, if it is asked.

        Raises:
            ValueError: If it cannot.
        """
        if self.seen is not None:
            return
        sightings = encoder.sightings
        if sightings is None or not encoder.is_frozen:
            raise ValueError(
                "recall.seen: must name an observation where no frozen encoder finds objects, got "
                f"null with encoder.frozen={str(encoder.is_frozen).lower()} and encoder.sightings="
                f"{'null' if sightings is None else '{...}'}. Name what the environment shows, "
                "or set policy.encoder.frozen=true and policy.encoder.sightings={}."
            )
        for own, name in (("goal", "category"), ("position", "position"), ("heading", "heading")):
            key, other = getattr(self, own), getattr(sightings, name)
            if key != other:
                raise ValueError(
                    f"recall.{own}: must be encoder.sightings.{name} where recall.seen is null, "
                    f"got {key!r} and {other!r}. Name the same observation."
                )

    def _check_goal(self, goal: spaces.Space | None) -> None:
        from gymnasium.spaces import Discrete

        # Questions are numbers of categories, counted from 0.
        if not isinstance(goal, Discrete) or goal.start != 0:
            raise ValueError(
                f"policy.recall.goal: must be observed as a Discrete that starts at 0, where other "
                f"goals are asked for, got {goal} for {self.goal!r}. Name the category that is "
                "asked for, or set policy.recall=null."
            )

    def _check_detections(self, space: spaces.Dict) -> None:
        goal, seen = space[self.goal], space.spaces.get(self.seen or "")
        if seen is None or seen.shape != (4 * int(getattr(goal, "n", 0)),):
            raise ValueError(
                f"policy.recall.relabelled: must be 0 where {self.seen!r} is not observed with 4 "
                f"numbers for each of the categories of {self.goal!r}, got {self.relabelled} with "
                f"{seen} and {goal}. Houses show it with env.options.sensors=[detections]."
            )
        if self.goal_seen is not None:
            shown_by = "env.options.sensors=[detections]; set goal_seen=null where it is no input"
            _check_observed(space, self.goal_seen, 5, section="recall", shown_by=shown_by)


def _check_observed(
    space: spaces.Dict, key: str, size: int, *, section: str, shown_by: str
) -> None:
    shape = space[key].shape if key in space.spaces else None
    if not shape or shape[-1] != size:
        found = "nothing" if shape is None else f"the shape {shape}"
        raise ValueError(
            f"policy.{section}: {key} must be observed with {size} numbers, got {found}. "
            f"Houses show it with {shown_by}."
        )
