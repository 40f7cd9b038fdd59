"""A piece of furniture or a small object before placement: the solids that it is made of.

A piece stands at the origin of its own frame: its width lies along x, its depth along y, its back
at the least y and its front looks along +y.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from envs.houses.scene import Kind

NARROWEST_SURFACE: Final = 0.08

Span = tuple[float, float]


class Part(NamedTuple):
    """One primitive in the frame of its piece."""

    kind: int
    x: float
    y: float
    z: float
    half_x: float
    half_y: float
    half_z: float
    faces: tuple[int, ...]
    """Six materials, by `Face`."""


class Surface(NamedTuple):
    """A flat place for small objects, in the frame of its piece."""

    x: float
    y: float
    z: float
    half_x: float
    half_y: float
    clearance: float


@dataclass(slots=True)
class Piece:
    """A piece under construction. `box` and its like add to it.

    Riders are pieces of another category that stand on this one, such as a lamp on a nightstand.
    """

    category: str
    width: float
    depth: float
    parts: list[Part] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)
    riders: list[Piece] = field(default_factory=list)
    keeps_yaw: bool = False
    """Whether a pattern on top of it must turn with it."""

    def box(
        self,
        x: Span,
        y: Span,
        z: Span,
        material: int,
        *,
        front: int | None = None,
        top: int | None = None,
        sides: int | None = None,
    ) -> None:
        """Add a box by its least and greatest coordinates."""
        side = material if sides is None else sides
        faces = (
            side,
            side,
            material if front is None else front,
            material,
            material if top is None else top,
            material,
        )
        self.parts.append(
            Part(
                Kind.BOX,
                (x[0] + x[1]) / 2,
                (y[0] + y[1]) / 2,
                (z[0] + z[1]) / 2,
                (x[1] - x[0]) / 2,
                (y[1] - y[0]) / 2,
                (z[1] - z[0]) / 2,
                faces,
            )
        )

    def mirrored_boxes(self, x: Span, y: Span, z: Span, material: int) -> None:
        """Add a box and its mirror image on the side of lesser x, which comes first."""
        self.box((-x[1], -x[0]), y, z, material)
        self.box(x, y, z, material)

    def cylinder(
        self,
        at: tuple[float, float],
        z: Span,
        radius: float,
        material: int,
        *,
        top: int | None = None,
    ) -> None:
        """Add an upright cylinder."""
        cap = material if top is None else top
        faces = (material, material, material, material, cap, material)
        height = z[1] - z[0]
        self.parts.append(
            Part(Kind.CYLINDER, *at, (z[0] + z[1]) / 2, radius, radius, height / 2, faces)
        )

    def ball(
        self, at: tuple[float, float, float], radii: tuple[float, float, float], material: int
    ) -> None:
        """Add an ellipsoid."""
        self.parts.append(Part(Kind.ELLIPSOID, *at, *radii, (material,) * 6))

    def legs(self, x: float, y: float, height: float, material: int, *, half: float = 0.03) -> None:
        """Add four legs whose outer corners lie at (+-x, +-y)."""
        for centre_x in (-(x - half), x - half):
            for centre_y in (-(y - half), y - half):
                span_x = (centre_x - half, centre_x + half)
                span_y = (centre_y - half, centre_y + half)
                self.box(span_x, span_y, (0.0, height), material)

    def surface(self, x: Span, y: Span, z: float, clearance: float) -> None:
        """Declare a place for small objects, unless it is too narrow for any."""
        if min(x[1] - x[0], y[1] - y[0]) < NARROWEST_SURFACE:
            return
        self.surfaces.append(
            Surface(
                (x[0] + x[1]) / 2,
                (y[0] + y[1]) / 2,
                z,
                (x[1] - x[0]) / 2,
                (y[1] - y[0]) / 2,
                clearance,
            )
        )
