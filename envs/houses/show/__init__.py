"""Look at a house and walk in it: `python -m envs.houses.show`."""
