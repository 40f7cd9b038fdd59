"""What stands in corners, lies flat or hangs on walls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envs.houses.model import Model

if TYPE_CHECKING:
    from envs.houses.draws import Draws
    from envs.houses.palette import Palette


def floor_lamp(draws: Draws, palette: Palette) -> Model:
    """A shade on a pole."""
    model = Model("lamp", 0.36, 0.36)
    height = draws.uniform(1.5, 1.7)
    shade = palette.table.add((1.0, 0.92, 0.66))
    model.cylinder((0.0, 0.0), (0.0, 0.03), 0.15, palette.black)
    model.cylinder((0.0, 0.0), (0.03, height - 0.28), 0.02, palette.brass)
    model.cylinder((0.0, 0.0), (height - 0.28, height), 0.18, shade)
    return model


def plant(draws: Draws, palette: Palette) -> Model:
    """Foliage in a pot: a bush, a small tree or tall leaves."""
    model = Model("plant", 0.44, 0.44)
    pot = palette.vivid() if draws.chance(0.5) else palette.table.add((0.72, 0.4, 0.25))
    leaf, form = palette.leaf(), draws.integer(0, 2)
    model.cylinder((0.0, 0.0), (0.0, 0.3), 0.16, pot)
    earth = palette.table.add((0.2, 0.13, 0.08))
    model.cylinder((0.0, 0.0), (0.3, 0.31), 0.14, earth)
    if form == 0:
        model.ball((0.0, 0.0, 0.6), (0.22, 0.22, 0.32), leaf)
        model.ball((0.05, -0.04, 0.85), (0.14, 0.14, 0.2), leaf)
    elif form == 1:
        top = draws.uniform(1.3, 1.6)
        model.cylinder((0.0, 0.0), (0.31, top - 0.2), 0.025, palette.wood())
        model.ball((0.0, 0.0, top), (0.22, 0.22, 0.26), leaf)
    else:
        for x, y, height in ((0.0, 0.0, 1.2), (0.1, 0.05, 0.95), (-0.09, 0.06, 0.85)):
            half = (height - 0.3) / 2
            model.ball((x, y, 0.3 + half), (0.07, 0.07, half), leaf)
    return model


def rug(draws: Draws, palette: Palette, width: float = 2.0, depth: float = 1.4) -> Model:
    """A flat rug of a given size."""
    model = Model("rug", width, depth)
    tile = palette.pick(("rug_border", "rug_rings"))
    rgb = palette.fabric_rgb()
    top = palette.table.emblem(tile, rgb)
    if draws.chance(0.3):
        top = palette.table.add(rgb, palette.pick(("lying_stripes", "shag", "plaid")), 0.7)
    side = palette.table.add(rgb)
    model.box((-width / 2, width / 2), (-depth / 2, depth / 2), (0.0, 0.012), side, top=top)
    return model


def fireplace(draws: Draws, palette: Palette) -> Model:
    """A brick hearth with a mantelpiece."""
    model = Model("fireplace", draws.uniform(1.2, 1.4), 0.4)
    x, y = model.width / 2, 0.2
    brick = palette.table.add((0.72, 0.36, 0.27), "bricks", 0.6)
    model.box((-x, x), (-y, y - 0.04), (0.0, 1.1), brick)
    fire = palette.table.emblem("fire")
    model.box((-0.36, 0.36), (y - 0.04, y - 0.02), (0.08, 0.72), palette.black, front=fire)
    model.box((-x, x), (-y, y), (1.1, 1.16), palette.wood())
    model.box((-x + 0.2, x - 0.2), (-y, y - 0.12), (1.16, 2.5), brick)
    model.surface((-x + 0.03, -x + 0.18), (-y + 0.03, y - 0.03), 1.16, 0.6)
    model.surface((x - 0.18, x - 0.03), (-y + 0.03, y - 0.03), 1.16, 0.6)
    return model


def radiator(draws: Draws, palette: Palette) -> Model:
    """A ribbed heater."""
    model = Model("radiator", draws.uniform(0.7, 1.1), 0.1)
    x = model.width / 2
    ribs = palette.table.add((0.95, 0.95, 0.93), "radiator", 0.5)
    model.box((-x, x), (-0.05, 0.05), (0.12, 0.72), ribs)
    return model


def window(draws: Draws, palette: Palette, width: float = 1.2) -> Model:
    """A view of the garden between curtains, on an outer wall."""
    model = Model("window", width, 0.06)
    x, low = width / 2, draws.uniform(0.85, 1.0)
    glass, frame = palette.table.emblem("window"), palette.white
    model.box((-x, x), (-0.03, 0.0), (low, low + 1.15), frame, front=glass)
    model.box((-x - 0.04, x + 0.04), (-0.03, 0.03), (low - 0.05, low), frame)
    if draws.chance(0.65):
        curtain = Model("curtain", width + 0.5, 0.08)
        cloth = palette.table.add(palette.fabric_rgb(), "curtain", 0.35)
        for side in (-1, 1):
            near, far = sorted((side * (x - 0.02), side * (x + 0.22)))
            curtain.box((near, far), (-0.03, 0.03), (low - 0.05, low + 1.3), cloth)
        model.riders.append(curtain)
    return model


def picture(draws: Draws, palette: Palette) -> Model:
    """A framed painting."""
    width = draws.uniform(0.5, 0.9)
    model = Model("picture", width, 0.03)
    x, low, height = width / 2, draws.uniform(1.25, 1.4), draws.uniform(0.45, 0.65)
    art = palette.pick(("landscape", "abstract", "portrait", "flower_picture"))
    canvas = palette.table.emblem(art)
    model.box((-x, x), (-0.015, 0.015), (low, low + height), palette.black, front=canvas)
    return model


def clock(draws: Draws, palette: Palette) -> Model:
    """A wall clock."""
    half = draws.uniform(0.15, 0.2)
    model = Model("clock", 2 * half, 0.04)
    dial = palette.table.emblem("clock")
    low = 1.6
    model.box((-half, half), (-0.02, 0.02), (low, low + 2 * half), palette.black, front=dial)
    return model


def wall_shelf(draws: Draws, palette: Palette) -> Model:
    """A board on the wall with books on half of it."""
    model = Model("wall_shelf", draws.uniform(0.7, 1.0), 0.24)
    x, z = model.width / 2, 1.45
    model.box((-x, x), (-0.12, 0.12), (z, z + 0.03), palette.wood())
    row = palette.table.emblem(palette.pick(("books", "more_books")))
    model.box((-x + 0.03, 0.1), (-0.12, 0.06), (z + 0.03, z + 0.27), row)
    return model


def standing_mirror(draws: Draws, palette: Palette) -> Model:
    """A tall mirror on the wall."""
    model = Model("mirror", draws.uniform(0.45, 0.6), 0.04)
    x = model.width / 2
    glass = palette.table.emblem("mirror")
    model.box((-x, x), (-0.02, 0.02), (0.35, 1.9), palette.wood(), front=glass)
    return model
