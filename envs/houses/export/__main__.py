"""Write houses as a Habitat scene dataset: `python -m envs.houses.export`."""

from envs.core.commands import run

if __name__ == "__main__":
    raise SystemExit(run("envs.houses.export.command"))
