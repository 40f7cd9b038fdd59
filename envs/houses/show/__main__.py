"""Look at a house, or walk in it: `python -m envs.houses.show`."""

from envs.core.commands import run

if __name__ == "__main__":
    raise SystemExit(run("envs.houses.show.command"))
