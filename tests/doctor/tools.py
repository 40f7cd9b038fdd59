"""What the doctor's tests share."""

from dataclasses import replace

from relic.doctor.check import Finding, World


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def by_part(findings: list[Finding]) -> dict[str, Finding]:
    return {f.part: f for f in findings}


def in_environment(world: World, **variables: object) -> World:
    return replace(
        world, environment={**world.environment, **{k: str(v) for k, v in variables.items()}}
    )
