"""Houses as a Habitat scene dataset: `python -m envs.houses.export`; begin with `scene_dataset`."""
