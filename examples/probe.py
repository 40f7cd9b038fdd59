"""Does the agent learn from an expert's episodes? Put some into its context, and compare.

    .venv/bin/python examples/probe.py

`difference` is what the demonstrations add to the agent's own episode of the same trial and index.
"""

from relic.evaluation import ProbeResult, probe


def main(run: str = "pretrained/darkroom", **options: object) -> ProbeResult:
    """Probe an agent and print a line for each number of demonstrations."""
    result = probe(run, **{"counts": (0, 1, 2), "repeats": 1, **options})
    shown, gained = (result.at_first("return", part) for part in ("demonstrated", "difference"))
    for index, count in enumerate(result.counts):
        print(
            f"after {count} of the expert's episodes: return {shown.mean[index]:.1f}, "
            f"{gained.mean[index]:+.1f} against as many of its own"
        )
    return result


if __name__ == "__main__":
    main()
