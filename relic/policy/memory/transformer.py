"""The ReLIC memory: a causal transformer over a whole trial, with sinks.

Pre-norm blocks of RMSNorm, attention and GeGLU without biases. Steps carry their position in the
episode and the index of their episode. `pass_plan.py` says which step sees which. A full pass is
`_read`, a cached step is `decode`; `attention/sinks.py` says where the sinks enter each.

Shapes: N rows, T steps, E width, L layers, H heads, D head dim, K sinks, P cached steps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relic.policy.attention.cpu.compiled import scratch_bytes
from relic.policy.attention.inputs import Sinks
from relic.policy.attention.kinds import AttentionBackend, SinkKind
from relic.policy.attention.layer_attention import LayerAttention
from relic.policy.attention.sinks import SinkKV
from relic.policy.memory.blocks import NORM_EPS, Block, decode_layers, init_weights, look_up
from relic.policy.memory.config import PositionKind, TransformerConfig
from relic.policy.memory.cpu.layers import RMSNorm
from relic.policy.memory.cpu.step import fits_step, run_step
from relic.policy.memory.cuda_graph import CUDAGraphSteps
from relic.policy.memory.decode import plan_decode
from relic.policy.memory.hooks import recorded, watched
from relic.policy.memory.kv_cache import KVCache
from relic.policy.memory.pass_plan import (
    PassPlan,
    PrefillWriter,
    plan_pass,
    rotation_of,
    segment_steps,
)
from relic.policy.memory.positions import Positions, last_before, next_position
from relic.policy.memory.sequence_model import (
    KVRecorder,
    Reach,
    SequenceModel,
    SequenceState,
    as_state,
    check_rows,
)

OnKeyValue = Callable[[int, Tensor, Tensor], None]
"""Called with a layer's index, keys and values (N, H, T, D)."""


class Transformer(SequenceModel):
    """The transformer of a configuration.

    Args:
        config: What to build.
        max_episode_steps: Steps that an episode may have; sizes the table of positions.
    """

    Config = TransformerConfig

    def __init__(self, config: TransformerConfig, *, max_episode_steps: int):
        super().__init__(config, max_episode_steps=max_episode_steps)
        self.config = config
        self.width = config.width
        self.max_episode_steps = max_episode_steps
        learned = PositionKind.LEARNED
        self.step_embedding: nn.Embedding | None = None
        self.episode_embedding: nn.Embedding | None = None
        if config.in_episode_position is learned:
            rows = config.max_positions or max_episode_steps + 1
            self.step_embedding = nn.Embedding(rows, config.width)
        if config.episode_position is learned:
            self.episode_embedding = nn.Embedding(config.max_episodes, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, eps=NORM_EPS)
        self.apply(init_weights)
        self._add_sinks()

    def _add_sinks(self) -> None:
        config = self.config
        self.sink: SinkKV | None = None
        self.sink_token: nn.Parameter | None = None
        if config.sink is SinkKind.TOKEN:
            self.sink_token = nn.Parameter(torch.zeros(config.num_sinks, config.width))
            if config.num_sinks > 1:
                nn.init.normal_(self.sink_token, std=SinkKV.INIT_STD)
        elif config.sink is not SinkKind.NONE:
            self.sink = SinkKV(
                config.sink,
                config.num_sinks,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                head_dim=config.head_dim,
            )

    def forward(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState | None = None,
        *,
        depth_mask_NL: Tensor | None = None,
    ) -> Tensor:
        """Read all steps at once; see `SequenceModel.forward`."""
        prefix = None if state is None else as_state(self, state, KVCache)
        if prefix is not None:
            check_rows(self, prefix, x_NTE)
            prefix.check_valid()
            if depth_mask_NL is None:
                depth_mask_NL = prefix.depth_mask_NL
        return self._read(x_NTE, plan_pass(self.config, episode_starts_NT, prefix), depth_mask_NL)

    def step(
        self, x_NE: Tensor, episode_starts_N: Tensor, state: SequenceState, write: bool = True
    ) -> Tensor:
        """Read the next step of every row; see `SequenceModel.step`."""
        cache = as_state(self, state, KVCache)
        # A step that is only looked at may stand behind the last one of the trial.
        cache.make_room(1, look=0 if write else 1)
        self.sync_sinks(cache)
        if write and cache.cuda_graph is not None:
            y_NE = cache.cuda_graph(x_NE, episode_starts_N)
        else:
            y_NE = self.decode(x_NE, episode_starts_N, cache, write)
        if write:
            cache.note_steps(1)
        return y_NE

    def append(
        self,
        x_NTE: Tensor,
        episode_starts_NT: Tensor,
        state: SequenceState,
        rows: np.ndarray,
        counts: np.ndarray,
    ) -> Tensor:
        """Append many steps to chosen rows; see `SequenceModel.append`."""
        cache = as_state(self, state, KVCache)
        # Caches are refilled after updates, when weights are new whatever their counts say.
        self.sync_sinks(cache, anew=True)
        prefix = cache.select(rows)
        plan = plan_pass(self.config, episode_starts_NT, prefix, counts)
        writer = PrefillWriter(
            cache,
            prefix,
            rows=rows,
            counts=counts,
            num_steps=x_NTE.shape[1],
            segment_starts_NT=plan.segment_starts_NT,
        )
        y_NTE = self._read(x_NTE, plan, prefix.depth_mask_NL, on_kv=writer.write)
        writer.finish(plan.facts)
        return y_NTE

    def initial_state(
        self,
        num_rows: int,
        capacity: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> KVCache:
        """Return an empty cache; see `SequenceModel.initial_state`."""
        weight = self.norm.weight
        return KVCache(
            self.config,
            num_rows,
            capacity,
            max_episode_steps=self.max_episode_steps,
            device=weight.device if device is None else device,
            dtype=weight.dtype if dtype is None else dtype,
        )

    def bytes_per_row(self, steps: int, dtype: torch.dtype = torch.float32) -> int:
        """Return layers x 2 x width x (sinks + slots) x bytes of a number."""
        slots = self.config.slots_for(steps, self.max_episode_steps)
        numbers = self.config.num_layers * 2 * self.config.width
        return numbers * (self.config.sink_slots + slots) * dtype.itemsize

    def draw_depth_mask(
        self, num_rows: int, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Draw which layers each row keeps for one rollout, scaled to keep the mean."""
        rate = self.config.depth_dropout
        if rate == 0:
            return None
        shape = (num_rows, self.config.num_layers)
        device = generator.device if generator is not None else self.norm.weight.device
        kept = torch.rand(shape, generator=generator, device=device) >= rate
        return (kept / (1 - rate)).to(self.norm.weight.device)

    @classmethod
    def limit_context(
        cls, config: TransformerConfig, *, newest: int | None, drop_first: int
    ) -> TransformerConfig:
        """Return a limited configuration; see `SequenceModel.limit_context`.

        Attention is left to what fits: a backend chosen for the whole trial may not.
        """
        return replace(
            config,
            attention_window=newest,
            drop_first=drop_first,
            attention_backend=AttentionBackend.AUTO,
        )

    def use_cuda_graph(self, state: SequenceState) -> None:
        """Replay steps from CUDA graphs; see `SequenceModel.use_cuda_graph`."""
        cache = as_state(self, state, KVCache)
        cache.cuda_graph = CUDAGraphSteps(self.decode, cache)

    def record_kv(self) -> AbstractContextManager[KVRecorder]:
        """Record keys and values; see `SequenceModel.record_kv`."""
        return recorded(self.blocks, copies=self.config.gradient_checkpointing)

    def watch_attention(self) -> AbstractContextManager[list[LayerAttention]]:
        """Watch what heads attend to; see `SequenceModel.watch_attention`."""
        return watched(self.blocks)

    def scratch_bytes(self, steps: int) -> int:
        """Return the scratch of compiled kernels, where they run."""
        config = self.config
        ours = config.attention_backend in (AttentionBackend.AUTO, AttentionBackend.COMPILED)
        runs = ours and config.sees_whole_trial and self.norm.weight.device.type == "cpu"
        return scratch_bytes(steps, config.head_dim) if runs else 0

    @property
    def reach(self) -> Reach:
        """How far the learned tables go."""
        config, learned = self.config, PositionKind.LEARNED
        runs_on = config.in_episode_position is learned and not config.reset_position
        return Reach(
            episodes=config.max_episodes if config.episode_position is learned else None,
            steps=config.max_positions if runs_on else None,
        )

    def _read(
        self,
        x_NTE: Tensor,
        plan: PassPlan,
        depth_mask_NL: Tensor | None,
        on_kv: OnKeyValue | None = None,
    ) -> Tensor:
        """Run all layers over T steps."""
        h_NTE = self._embed(x_NTE, plan.facts, plan.trial_NT)
        factor = rotation_of(self.config, plan.facts, plan.trial_NT)
        factor = None if factor is None else factor[:, :, None, None]
        sinks = self._sinks(depth_mask_NL)
        saves_memory = self.config.gradient_checkpointing and torch.is_grad_enabled()
        for layer, block in enumerate(self.blocks):
            scale = None if depth_mask_NL is None else depth_mask_NL[:, layer, None, None]
            args = (h_NTE, factor, sinks[layer], plan.past(layer), plan.segments, scale)
            if saves_memory:
                h_NTE = checkpoint(block, *args, use_reentrant=False)[0]
            else:
                h_NTE, k, v = block(*args)
                if on_kv is not None:
                    on_kv(layer, k, v)
        return self.norm(h_NTE)

    @torch.no_grad()
    def decode(
        self, x_NE: Tensor, episode_starts_N: Tensor, cache: KVCache, write: bool = True
    ) -> Tensor:
        """Run one step on the device alone; `step` does the host's part.

        Nothing here waits for the device or depends on its values, so with `cache.fixed_slots` it
        can be captured as a CUDA graph.
        """
        if fits_step(x_NE, cache):
            return run_step(self, x_NE, episode_starts_N, cache, write=write)
        facts = next_position(episode_starts_N, cache.last)
        before_N = segment_steps(self.config, episode_starts_N, cache)
        h_NE = self._embed(x_NE, facts, cache.lengths, None if write else cache.capacity)
        factor = rotation_of(self.config, facts, cache.lengths)
        plan = plan_decode(cache, before_N, self.config.attention_backend)
        y_NE = decode_layers(self._layers(), self.norm, h_NE, factor, cache, plan, write=write)
        if write:
            # In place, because a captured step goes on writing these tensors.
            cache.lengths += 1
            cache.segment_steps.copy_(before_N + 1)
            cache.last.in_episode.copy_(facts.in_episode)
            cache.last.episode.copy_(facts.episode)
        return y_NE

    def _layers(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _embed(
        self, x: Tensor, facts: Positions, trial: Tensor, looks_until: int | None = None
    ) -> Tensor:
        """Add the learned positions to tokens.

        Args:
            x: Tokens.
            facts: Their positions.
            trial: Their indices in the trial.
            looks_until: Steps that the trial may have, where a step is only looked at. It may stand
                behind the last of them, and then behind the last episode.
        """
        config = self.config
        if looks_until is not None:
            trial = last_before(trial, looks_until)
            facts = facts._replace(episode=last_before(facts.episode, config.max_episodes))
        if self.step_embedding is not None:
            in_episode = last_before(facts.in_episode, self.max_episode_steps)
            step = in_episode if config.reset_position else trial
            x = x + look_up(self.step_embedding, step, "position in its episode")
        if self.episode_embedding is not None:
            x = x + look_up(self.episode_embedding, facts.episode, "episode's index")
        return x

    def _sinks(self, depth_mask_NL: Tensor | None) -> list[Sinks | None]:
        """Return each layer's sinks. None of their keys is rotated: they stand at index 0."""
        if self.sink is not None:
            return [Sinks(*self.sink.layer(i)) for i in range(len(self.blocks))]
        if self.sink_token is None:
            return [None] * len(self.blocks)
        rows = 1 if depth_mask_NL is None else depth_mask_NL.shape[0]
        h_NKE = self.sink_token.expand(rows, -1, -1)
        sinks: list[Sinks | None] = []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            scale = None if depth_mask_NL is None else depth_mask_NL[:, layer, None, None]
            h_NKE, own = block.read_sink(h_NKE, scale)
            sinks.append(own)
        return sinks

    @torch.no_grad()
    def sync_sinks(self, cache: KVCache, *, anew: bool = False) -> None:
        """Write the sinks of the current weights into a cache, if weights have changed.

        Args:
            cache: Written.
            anew: Write them in any case. Otherwise the parameters' version counts decide; the
                learner counts up where its fused optimiser does not.
        """
        if self.config.sink is SinkKind.NONE:
            return
        made_of = self if self.sink is None else self.sink
        version = tuple(p._version for p in made_of.parameters())
        if not anew and cache.sink_version == version:
            return
        if self.sink is not None:
            self._write_sinks(cache, self.sink.key_LHKD[:, None], self.sink.value_LHKD[:, None])
        else:
            sinks = [s for s in self._sinks(cache.depth_mask_NL) if s is not None]
            key, value = (torch.stack(part) for part in zip(*sinks, strict=True))
            self._write_sinks(cache, key, value)
        cache.sink_version = version

    def _write_sinks(self, cache: KVCache, key: Tensor, value: Tensor) -> None:
        end = cache.num_sinks
        cache.kv[:, 0, :, :, :end] = key
        cache.kv[:, 1, :, :, :end] = value
        if self.config.rotate_sink_query:
            return
        if cache.sink_key is not None and cache.sink_key.shape == key.shape:
            cache.sink_key.copy_(key)
        else:
            with torch.inference_mode(False):
                # In the weights' type whatever the pass: a later step may be the first to write it.
                cache.sink_key = key.detach().to(self.norm.weight.dtype, copy=True)
