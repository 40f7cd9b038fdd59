"""The picture encoder of a run that pretrains one of its own, in the run's directory."""

from __future__ import annotations

from dataclasses import replace

from relic.policy.encoders.images import DESCRIPTION_FILE
from relic.pretraining.pretrain import pretrain_encoder
from relic.run.config import RunConfig
from relic.run.distributed import Ranks
from relic.run.progress import tell
from relic.run.run_directory import RunDirectory


def lacks_encoder(config: RunConfig, directory: RunDirectory) -> bool:
    """Say whether an encoder is still to be pretrained."""
    return _has_own(config) and not (directory.encoder / DESCRIPTION_FILE).exists()


def with_encoder(config: RunConfig, directory: RunDirectory, ranks: Ranks) -> RunConfig:
    """Pretrain the run's encoder where that is asked for, and let the policy start from it.

    An encoder that the configuration names already is used instead.
    """
    if _has_own(config):
        if ranks.is_first:
            say = tell if config.logging.progress else _keep_quiet
            pretrain_encoder(config, directory.encoder, say)
        ranks.barrier()
    return name_encoder(config, directory)


def name_encoder(config: RunConfig, directory: RunDirectory) -> RunConfig:
    """Return the configuration with the run's pretrained encoder, if it has one."""
    if not _has_own(config):
        return config
    encoder = replace(config.policy.encoder, checkpoint=str(directory.encoder))
    return replace(config, policy=replace(config.policy, encoder=encoder))


def _has_own(config: RunConfig) -> bool:
    return config.pretrain.pictures > 0 and config.policy.encoder.checkpoint is None


def _keep_quiet(text: str) -> None:
    del text
