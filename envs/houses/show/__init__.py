"""Look at a house or walk in it: `python -m envs.houses.show`. Maps are drawn in `topdown`."""
