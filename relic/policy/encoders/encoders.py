"""From a Gymnasium Dict observation to one vector per step.

The path of an observation:

1. `env.step` returns arrays (N, ...) by key; the collector hands them to `Policy`.
2. `ObservationEncoder.encode` makes of them what a rollout stores: pixels, or features where the
   pictures' encoders are frozen; what is not used is dropped.
3. `ObservationEncoder.forward` makes one vector of that, in `Policy.step` as later in
   `Policy.evaluate_actions`: features of pictures (`images`, by networks of `backbones` and `vit`),
   vectors, categories and the previous action (`inputs`), side by side.
4. `Policy` turns the vector into a token. The memory reads tokens, the heads read the memory, and
   the loss reads the heads.

Shapes: ``...`` stands for N rows or N rows x T steps; F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from relic.policy.encoders.config import (
    PREV_REWARD,
    EncoderConfig,
    SightingsConfig,
    VisualKind,
)
from relic.policy.encoders.images import ImageEncoder, load_pretrained
from relic.policy.encoders.inputs import (
    CategoryEncoder,
    PrevActionEncoder,
    VectorEncoder,
    embed_categories,
    vector_size,
)
from relic.policy.encoders.plan import ObservationPlan, plan_observations
from relic.policy.encoders.sightings import Found, Sightings
from relic.policy.linear import Linear
from relic.schema import nearest
from relic.shipped import located

Observation = Mapping[str, Tensor | np.ndarray]

_SIGHTED = {
    "source": "observed pictures",
    "category": "an observed category",
    "position": "an observed vector of 2 numbers",
    "heading": "an observed vector of 1 number",
}


def module_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a name of a module for each key: no two alike, and without dots, which none may hold.

    Some keys are names of module methods, so each has an ending.
    """
    names: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: ("." in key, key)):
        name = f"{key.replace('.', '_')}_in"
        while name in names.values():
            name += "_"
        names[key] = name
    return names


class ObservationEncoder(nn.Module):
    """A Dict observation and the previous action to one vector per step.

    Attributes:
        num_features: Size of the vector.
        is_frozen: Pictures are encoded by frozen encoders, so their features are stored.
        stored_space: What a rollout has to store of an observation.
        stored_dtypes: Its types; where a feature is bfloat16, `stored_space` says float32, as
            numpy has no such type.

    Args:
        config: Which observations, and how.
        observation_space: Space of one row's observation.
        action_space: Space of one row's action.
        width: Model width: of picture features and, by default, of embeddings.
        pretrained: Read the weights of `config.checkpoint`. Off where weights are loaded next.
        targets: Observations that are stored to be learned from, and are no inputs.

    Raises:
        ValueError: If a key is unknown, a space cannot be encoded, or nothing is left.
    """

    def __init__(
        self,
        config: EncoderConfig,
        observation_space: spaces.Dict,
        action_space: spaces.Space,
        *,
        width: int,
        pretrained: bool = True,
        targets: Sequence[str] = (),
    ) -> None:
        super().__init__()
        plan = plan_observations(config, observation_space, targets=targets)
        embedded = config.category_width or width
        self.config = config
        self.plan = plan
        self.targets = tuple(targets)
        self.is_frozen = config.is_frozen and bool(plan.images)
        self._names = module_names(plan.inputs)
        self._feature_keys = {key: f"{key}_features" for key in plan.images}
        for key in plan.images:
            while self._feature_keys[key] in observation_space.spaces:
                self._feature_keys[key] += "_"
        self.images = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        self._encoder_names: dict[str, str] = {}
        self._add_images(plan, width, pretrained=pretrained)
        self.vectors = nn.ModuleDict()
        for key, space in plan.vectors.items():
            shape = {"width": config.vector_widths.get(key), "angles": key in config.angles}
            units, scaled = config.vector_units.get(key), config.scale_vectors
            self.vectors[self._names[key]] = VectorEncoder(
                space, scaled=scaled, units=units, **shape
            )
        embeddings = embed_categories(plan.categories, embedded, config.same_categories)
        self.categories = nn.ModuleDict({self._names[key]: e for key, e in embeddings.items()})
        self.sightings = self._sightings(config.sightings, width)
        self.prev_action = PrevActionEncoder(action_space, embedded) if config.prev_action else None
        self.num_features = self._count(width)
        self.stored_space, self.stored_dtypes = self._stored(observation_space)
        self.train()

    def _add_images(self, plan: ObservationPlan, width: int, *, pretrained: bool) -> None:
        for key, spec in plan.images.items():
            # As published, cameras that are alike share one ViT.
            shares = self.config.visual is VisualKind.VIT
            name = f"vit_{spec.height}x{spec.width}" if shares else self._names[key]
            if name not in self.images:
                encoder = ImageEncoder(self.config, spec)
                if pretrained:
                    self._fill(encoder)
                self.images[name] = encoder.requires_grad_(not self.is_frozen)
            self._encoder_names[key] = name
            self.projections[self._names[key]] = Linear(self.image_encoder(key).num_features, width)

    def _fill(self, encoder: ImageEncoder) -> None:
        path = self.config.checkpoint
        if path is not None:
            load_pretrained(encoder, located(path))
        elif encoder.kind is VisualKind.VIT:
            raise ValueError(
                "encoder.checkpoint: must be given for a ViT, got null. Name a file of weights "
                "with the names of timm, MAE or VC-1."
            )

    def image_encoder(self, key: str) -> ImageEncoder:
        """Return the encoder of the pictures under a key."""
        encoder = self.images[self._encoder_names[key]]
        assert isinstance(encoder, ImageEncoder)
        return encoder

    def vector_encoder(self, key: str) -> VectorEncoder:
        """Return the encoder of the vector under a key."""
        encoder = self.vectors[self._names[key]]
        assert isinstance(encoder, VectorEncoder)
        return encoder

    def _sightings(self, config: SightingsConfig | None, width: int) -> Sightings | None:
        if config is None:
            return None
        vectors = {k: s for k, s in self.plan.vectors.items() if isinstance(s, spaces.Box)}
        for name, fitting in (
            ("source", self.plan.images),
            ("category", self.plan.categories),
            ("position", [key for key, space in vectors.items() if vector_size(space) == 2]),
            ("heading", [key for key, space in vectors.items() if vector_size(space) == 1]),
        ):
            key = getattr(config, name)
            if key not in fitting:
                raise ValueError(
                    f"encoder.sightings.{name}: must be {_SIGHTED[name]}, got {key!r}. "
                    f"{nearest(key, fitting)}"
                )
        num_source = self.image_encoder(config.source).num_features
        sightings = Sightings(config, self._category_encoder(config.category), num_source)
        # What sightings read enters by them alone: as many numbers more would drown them.
        rest = Linear(num_source - sightings.num_used, width)
        self.projections[self._names[config.source]] = rest
        return sightings

    def _count(self, width: int) -> int:
        own = (self.prev_action, self.sightings)
        parts = [*self.vectors.values(), *self.categories.values(), *own]
        total = sum(int(part.num_features) for part in parts if part is not None)
        total += width * len(self.projections) + self.plan.adds_reward
        if total == 0:
            raise ValueError(
                "encoder.keys: must leave at least one input, got none. Name observations, or "
                "set encoder.prev_action."
            )
        return total

    def _stored(self, space: spaces.Dict) -> tuple[spaces.Dict, dict[str, torch.dtype]]:
        plan = self.plan
        stored: dict[str, spaces.Space] = {}
        dtypes: dict[str, torch.dtype] = {}
        for key in (*plan.inputs, *self.targets):
            if key in plan.images and self.is_frozen:
                half = np.float16 if self.feature_dtype is torch.float16 else np.float32
                shape = (self.image_encoder(key).num_features,)
                stored[self._feature_keys[key]] = spaces.Box(-np.inf, np.inf, shape, half)
                dtypes[self._feature_keys[key]] = self.feature_dtype
            else:
                stored[key] = space[key]
                dtypes[key] = torch.from_numpy(np.zeros(1, space[key].dtype)).dtype
        if plan.adds_reward:
            stored[PREV_REWARD] = spaces.Box(-np.inf, np.inf, (), np.float32)
            dtypes[PREV_REWARD] = torch.float32
        return spaces.Dict(stored), dtypes

    @property
    def feature_dtype(self) -> torch.dtype:
        """How features of frozen encoders are stored."""
        return getattr(torch, self.config.feature_dtype)

    def train(self, mode: bool = True) -> ObservationEncoder:
        """Set training mode; frozen encoders stay in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.images.eval()
        return self

    def encode(
        self, observation: Observation, device: torch.device | None = None
    ) -> dict[str, Tensor]:
        """Return what has to be stored of an observation, as `stored_space` says.

        Pictures of frozen encoders become features; observations that are not used are dropped.
        Targets may be missing: acting needs none.

        Args:
            observation: As the environment shows it.
            device: Where it goes. None: where it is.

        Raises:
            ValueError: If an observation is missing.
        """
        stored = {
            key: torch.as_tensor(observation[key], device=device)
            for key in self.stored_dtypes
            if key in observation
        }
        if self.is_frozen:
            for key in self.plan.images:
                if self._feature_keys[key] not in stored:
                    stored[self._feature_keys[key]] = self._frozen_features(key, observation)
        for key in self.stored_dtypes:
            if key not in stored and key not in self.targets:
                raise _missing(key, observation)
        return stored

    def forward(
        self, observation: Observation, prev_action: Tensor, episode_starts: Tensor
    ) -> Tensor:
        """Return (..., num_features).

        Args:
            observation: Raw, or as `encode` returned it: (..., *shape of the space).
            prev_action: The action of the step before; not looked at where an episode starts.
            episode_starts: bool (...,).

        Raises:
            ValueError: If an observation is missing.
        """
        plan, device, leading = self.plan, episode_starts.device, episode_starts.shape
        features = {key: self._features(key, observation, device) for key in plan.images}
        parts = [self._project(key, x) for key, x in features.items()]
        for key in plan.vectors:
            vector = _get(observation, key, device).reshape(*leading, -1)
            parts.append(self.vectors[self._names[key]](vector))
        if plan.adds_reward:
            reward = _get(observation, PREV_REWARD, device).reshape(leading).float()
            parts.append(reward.masked_fill(episode_starts, 0.0).unsqueeze(-1))
        for key in plan.categories:
            category = _get(observation, key, device).reshape(*leading, -1)
            parts.append(self.categories[self._names[key]](category))
        if self.sightings is not None:
            source = features[self.sightings.config.source]
            parts.append(self._sight(self.sightings, source, observation, device))
        if self.prev_action is not None:
            parts.append(self.prev_action(prev_action, episode_starts))
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _project(self, key: str, features: Tensor) -> Tensor:
        if self.sightings is not None and key == self.sightings.config.source:
            features = features[..., self.sightings.num_used :]
        return F.relu(self.projections[self._names[key]](features))

    def _sight(
        self, sightings: Sightings, features: Tensor, observation: Observation, device: torch.device
    ) -> Tensor:
        config, leading = sightings.config, features.shape[:-1]
        asked, embeddings_GE = self._asked(config.category, observation, device, leading)
        return sightings(features, asked, embeddings_GE, *_pose(config, observation, features))

    @torch.no_grad()
    def sighted(self, observation: Observation) -> Found:
        """Return what pictures show of each category; only where there are `sightings`."""
        assert self.sightings is not None
        config, device = self.sightings.config, next(self.parameters()).device
        features = self._features(config.source, observation, device)
        return self.sightings.found(features, *_pose(config, observation, features))

    def _asked(
        self, key: str, observation: Observation, device: torch.device, leading: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Return the row of the category that is asked for, (...,), and the table of all."""
        category = _get(observation, key, device).reshape(*leading, 1)
        encoder = self._category_encoder(key)
        return encoder.rows(category).squeeze(-1), encoder.table.weight

    def _category_encoder(self, key: str) -> CategoryEncoder:
        encoder = self.categories[self._names[key]]
        assert isinstance(encoder, CategoryEncoder)
        return encoder

    def _features(self, key: str, observation: Observation, device: torch.device) -> Tensor:
        if not self.is_frozen:
            features = self.image_encoder(key)(_get(observation, key, None))
        elif self._feature_keys[key] in observation:
            features = torch.as_tensor(observation[self._feature_keys[key]], device=device)
        else:
            features = self._frozen_features(key, observation)
        return features.float()

    def _frozen_features(self, key: str, observation: Observation) -> Tensor:
        # Rounded as they are stored, so that acting and learning see the same numbers.
        return self.image_encoder(key).frozen(_get(observation, key, None), self.feature_dtype)


def _pose(config: SightingsConfig, observation: Observation, features: Tensor) -> list[Tensor]:
    """Return position (..., 2) and heading (..., 1)."""
    both = ((config.position, 2), (config.heading, 1))
    vectors = [(_get(observation, key, features.device), size) for key, size in both]
    return [v.reshape(*features.shape[:-1], size).float() for v, size in vectors]


def _get(observation: Observation, key: str, device: torch.device | None) -> Tensor:
    try:
        return torch.as_tensor(observation[key], device=device)
    except KeyError:
        raise _missing(key, observation) from None


def _missing(key: str, observation: Observation) -> ValueError:
    return ValueError(
        f"observation: must hold {key!r}, got the keys {sorted(observation)}. "
        f"{nearest(key, observation)}"
    )
