"""Houses as a Habitat scene dataset: `python -m envs.houses.export`."""
