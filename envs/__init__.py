"""Environments whose rows live in trials: houses, Habitat, Darkroom, MiniGrid, any Gymnasium env.

Importing this package registers them with Gymnasium. Nothing here imports `relic`.
"""

from gymnasium.envs.registration import register

from envs.core.checker import TrialEnvError, check_trial_env

__all__ = ["TrialEnvError", "check_trial_env"]

register(
    id="relic/Darkroom-v0",
    entry_point="envs.darkroom:DarkroomEnv",
    vector_entry_point="envs.darkroom:DarkroomVectorEnv",
)
register(
    id="relic/Revisits-v0",
    entry_point="envs.revisits:RevisitsEnv",
    vector_entry_point="envs.revisits:RevisitsVectorEnv",
)
register(
    id="relic/Houses-v0",
    entry_point="envs.houses.env:HousesEnv",
    vector_entry_point="envs.houses.env:HousesVectorEnv",
)
register(
    id="relic/FourBoxes-v0",
    entry_point="envs.four_boxes:FourBoxesEnv",
    vector_entry_point="envs.four_boxes:FourBoxesVectorEnv",
)
register(
    id="relic/MiniGrid-v0",
    entry_point="envs.minigrid_rooms:make_one",
    vector_entry_point="envs.minigrid_rooms:make",
)
register(
    id="relic/POPGym-v0",
    entry_point="envs.popgym_tasks:make_one",
    vector_entry_point="envs.popgym_tasks:make",
)
register(
    id="relic/Habitat-v0",
    entry_point="envs.habitat.env:HabitatEnv",
    vector_entry_point="envs.habitat.env:HabitatVectorEnv",
)
