"""Configuration of the encoders: which observations enter a token, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal, get_args

from relic.schema import POSITIVE, check_bounds, choice

PREV_REWARD = "prev_reward"
"""Observation that carries the previous reward."""

GOAL_PLACES = "goal_places"
GOAL_RECALL = "goal_recall"
CRITIC_STATE = "critic_state"
LESSONS = (GOAL_PLACES, GOAL_RECALL, CRITIC_STATE)
"""Observations that say what an agent may learn from but must not know: no inputs unless named."""

Kind = Literal["colour", "depth", "classes", "numbers", "flat"]
"""What an array of an observation holds; see `EncoderConfig.kinds`."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class VisualKind(Enum):
    """How pictures are encoded."""

    AUTO = "auto"
    """The small CNN up to 128 pixels a side, ResNet-18 above."""
    SMALL_CNN = "small_cnn"
    IMPALA = "impala"
    RESNET18 = "resnet18"
    VIT = "vit"
    BLIND = "blind"
    """Pictures are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig:
    """Sizes of a vision transformer; the defaults are ViT-B/16, the size of VC-1."""

    width: Annotated[int, POSITIVE] = 768
    """Size of a token."""
    depth: Annotated[int, POSITIVE] = 12
    """Blocks of attention and MLP."""
    heads: Annotated[int, POSITIVE] = 12
    """Attention heads; must divide the width."""
    patch: Annotated[int, POSITIVE] = 16
    """Side of a patch in pixels."""
    image_size: Annotated[int, POSITIVE] = 224
    """Side of the crop that it sees, in pixels."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if self.width % self.heads:
            raise ValueError(
                f"heads: must divide width, got heads={self.heads}, width={self.width}. "
                "ViT-B has 12 heads and width 768."
            )
        if self.image_size % self.patch:
            raise ValueError(
                f"patch: must divide image_size, got patch={self.patch}, "
                f"image_size={self.image_size}. ViT-B/16 has 16 and 224."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SightingsConfig:
    """Which features of pictures say whether a category is in view, and where.

    The first 3 x categories x `columns` features of `source` are evidence, distance and bearing, as
    `pretrain.pictures` trains an encoder to predict.
    """

    source: str = "rgb"
    """Pictures that have these features."""
    category: str = "goal"
    """Observation of the category that is asked for."""
    position: str = "gps"
    """Observation of the agent's place in the trial's frame, in metres forward and to the right."""
    heading: str = "compass"
    """Observation of its heading in that frame, in radians, counter-clockwise."""
    columns: Annotated[int, POSITIVE] = 4
    """Columns of the picture."""
    least_evidence: Annotated[float, POSITIVE] = 3.0
    """Evidence from which an object is named; at 2 it is as likely there as not. The evidence of
    the goal enters the token in any case."""
    units: tuple[float, float] = (3.0, 5.0)
    """Metres that offsets and places are divided by."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_bounds(self)
        if not all(map(_is_unit, self.units)):
            raise ValueError(
                f"units: must be two positive numbers, got {self.units!r}. Use [3.0, 5.0]."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The encoders of a policy's observation."""

    visual: VisualKind = VisualKind.AUTO
    """How pictures are encoded."""
    frozen: bool | None = None
    """The encoders of pictures do not learn, and features are stored instead of pixels.
    None: a ViT is frozen, others learn."""
    checkpoint: str | None = None
    """Weights that encoders of pictures start from: a directory that `save_image_encoder` wrote, or
    for a ViT a file with the names of timm, MAE or VC-1. A relative path is looked up in the
    working directory, then in the project."""
    feature_width: Annotated[int | None, POSITIVE] = None
    """Features per picture, by a layer of their own. None: as many as the encoder has."""
    feature_dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """How features of frozen encoders are stored. In half precision they are also computed so: on
    CUDA, and in bfloat16 on a CPU that multiplies it natively."""
    channels: Annotated[int | None, POSITIVE] = None
    """Channels of a CNN's first layer. None: 16, for ResNet-18 32."""
    vit: VitConfig = field(default_factory=VitConfig)
    slice_size: Annotated[int, POSITIVE] = 2048
    """Pictures that are encoded at once. Where there are more, each slice is computed again in the
    backward pass, so that the memory of one is enough."""
    keys: tuple[str, ...] | None = None
    """Observations to use. None: all but those that are privileged."""
    privileged: tuple[str, ...] = ()
    """Observations that the agent must not know, beside those that the environment declares. They
    are no inputs unless `keys` names them."""
    kinds: dict[str, Kind] = field(default_factory=dict)
    """What an observation's array holds, where its type and bounds are misleading and the
    environment does not declare it. `colour`: whole numbers up to 255. `depth`: metres, up to
    `depth_max`. `classes`: whole numbers that name something, each with an embedding. `numbers`:
    any others, scaled by their bounds. These four are pictures (but a vector of `classes` is
    categories). `flat`: numbers that are no picture and enter as a vector."""
    slice_steps: Annotated[int, POSITIVE] = 4096
    """Steps of a row that become tokens at once. Where there are more, each slice is computed again
    in the backward pass, so that the memory which it takes does not grow with the context."""
    vector_widths: dict[str, int] = field(default_factory=lambda: {"gps": 32})
    """Width of the linear layer of a vector; vectors that are not named have none."""
    angles: tuple[str, ...] = ("compass",)
    """Vectors of angles in radians; they enter as cosines and sines."""
    scale_vectors: bool = True
    """Scale vectors whose finite bounds leave [-1, 1] to [-1, 1]."""
    vector_units: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {
            "detections": (1.0, 50.0, 3.0, 3.0),
            "depth_scan": (3.0,),
            "named_place": (5.0,),
            "goal_detection": (1.0, 3.0, 3.0, 5.0, 5.0),
            "critic_state": (5.0, 5.0, 5.0, 1.0),
        }
    )
    """Units that a vector's numbers are divided by, instead of being scaled by their bounds. A
    shorter list is repeated: `detections` are 20 times a flag, pixels, metres ahead and right."""
    same_categories: dict[str, str] = field(default_factory=lambda: {"named": "goal"})
    """Categories that share the embedding table of another observation, so that learning about one
    is learning about both. One number more than the other has means none, and is all zeros."""
    category_width: Annotated[int | None, POSITIVE] = None
    """Width of embedded categories and of the previous action. None: the model's."""
    depth_max: Annotated[float, POSITIVE] = 10.0
    """Depth in metres at which larger ones are cut off."""
    sightings: SightingsConfig | None = None
    """The token gets the place of the goal, if it is in view, and the name and place of one object
    in view, instead of the features. None: features are not read like this."""
    prev_action: bool = True
    """The previous action is an input; at an episode's start, a symbol for none."""
    prev_reward: bool = False
    """The previous reward is an input, zero at an episode's start. Not needed where the environment
    observes `prev_reward` itself."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        check_bounds(self)
        for key, kind in self.kinds.items():
            choice(kind, KINDS, f"kinds.{key}")
        for key, width in self.vector_widths.items():
            if not isinstance(width, int) or width < 1:
                raise ValueError(
                    f"vector_widths.{key}: must be a whole number of at least 1, got {width!r}. "
                    "Leave the key out to let the vector enter as it is."
                )
        for key, units in self.vector_units.items():
            if not isinstance(units, list | tuple) or not units or not all(map(_is_unit, units)):
                raise ValueError(
                    f"vector_units.{key}: must be a list of positive numbers, got {units!r}. "
                    "Leave the key out to scale the vector by its bounds."
                )
        for key, other in self.same_categories.items():
            if other in self.same_categories:
                raise ValueError(
                    f"same_categories.{key}: must name categories with a table of their own, got "
                    f"{other!r}. Name {self.same_categories[other]!r}."
                )

    @property
    def is_frozen(self) -> bool:
        """Whether the encoders of pictures are frozen."""
        return self.visual is VisualKind.VIT if self.frozen is None else self.frozen


def _is_unit(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < math.inf
