"""Check data on disk and make arrangements: `python -m envs.habitat`."""

from envs.core.commands import run

if __name__ == "__main__":
    raise SystemExit(run("envs.habitat.command"))
