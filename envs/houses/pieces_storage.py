"""Furniture that holds things: chests, shelves, cupboards, and what stands on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envs.houses.model import Model
from envs.houses.palette import hsv

if TYPE_CHECKING:
    from envs.houses.draws import Draws
    from envs.houses.palette import Palette


def table_lamp(palette: Palette, x: float, y: float, z: float) -> Model:
    """A lamp that rides on another piece, at a place in that piece's frame."""
    model = Model("lamp", 0.26, 0.26)
    shade = palette.table.add((1.0, 0.93, 0.7))
    model.cylinder((x, y), (z, z + 0.2), 0.035, palette.brass)
    model.cylinder((x, y), (z + 0.2, z + 0.42), 0.13, shade)
    return model


def nightstand(draws: Draws, palette: Palette) -> Model:
    """A small chest of drawers, sometimes with a lamp."""
    width, depth, height = draws.uniform(0.42, 0.5), 0.4, draws.uniform(0.48, 0.58)
    model = Model("nightstand", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("drawers", rgb)
    model.legs(x - 0.01, y - 0.01, 0.1, wood, half=0.02)
    model.box((-x + 0.01, x - 0.01), (-y, y - 0.01), (0.1, height - 0.03), wood, front=front)
    model.box((-x, x), (-y, y), (height - 0.03, height), wood)
    if draws.chance(0.4):
        model.riders.append(table_lamp(palette, -x + 0.14, -y + 0.14, height))
        model.surface((-x + 0.04, x - 0.04), (0.07, y - 0.03), height, 1.5)
    else:
        model.surface((-x + 0.04, x - 0.04), (-y + 0.03, y - 0.03), height, 1.5)
    return model


def dresser(draws: Draws, palette: Palette) -> Model:
    """A broad chest of drawers."""
    width, depth, height = draws.uniform(0.9, 1.3), 0.46, draws.uniform(0.78, 0.9)
    model = Model("dresser", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("many_drawers", rgb)
    model.box((-x + 0.03, x - 0.03), (-y, y - 0.04), (0.0, 0.08), palette.black)
    model.box((-x + 0.01, x - 0.01), (-y, y - 0.01), (0.08, height - 0.04), wood, front=front)
    model.box((-x, x), (-y, y), (height - 0.04, height), wood)
    if draws.chance(0.4):
        model.riders.append(table_lamp(palette, -x + 0.2, -0.05, height))
        model.surface((-x + 0.4, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    else:
        model.surface((-x + 0.04, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    return model


def wardrobe(draws: Draws, palette: Palette) -> Model:
    """A tall cupboard with two doors."""
    width, depth, height = draws.uniform(0.95, 1.4), 0.6, draws.uniform(1.95, 2.15)
    model = Model("wardrobe", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 1.2), palette.table.emblem("two_doors", rgb)
    model.box((-x + 0.03, x - 0.03), (-y, y - 0.05), (0.0, 0.08), palette.black)
    model.box((-x + 0.01, x - 0.01), (-y, y - 0.02), (0.08, height - 0.06), wood, front=front)
    model.box((-x, x), (-y, y), (height - 0.06, height), wood)
    return model


def bookshelf(draws: Draws, palette: Palette) -> Model:
    """Open shelves, some filled with books, some free."""
    width, depth = draws.uniform(0.8, 1.1), 0.32
    levels = draws.integer(3, 5)
    gap, board = 0.37, 0.03
    height = levels * gap + board
    model = Model("bookshelf", width, depth)
    x, y = width / 2, depth / 2
    wood = palette.wood()
    for side in (-1, 1):
        low, high = sorted((side * x, side * (x - 0.03)))
        model.box((low, high), (-y, y), (0.0, height), wood)
    model.box((-x + 0.03, x - 0.03), (-y, -y + 0.02), (0.0, height), wood)
    free = {0, draws.integer(1, 2)} if levels == 3 else {draws.integer(0, 1), 2}
    for level in range(levels + 1):
        z = level * gap
        model.box((-x + 0.03, x - 0.03), (-y + 0.02, y), (z, z + board), wood)
        if level == levels:
            break
        inside = (-x + 0.03, x - 0.03)
        if level in free:
            model.surface(inside, (-y + 0.05, y - 0.02), z + board, gap - board)
        else:
            row = palette.table.emblem(palette.pick(("books", "more_books")))
            model.box(inside, (-y + 0.02, y - 0.08), (z + board, z + 0.3), row)
    if height < 1.3:
        model.surface((-x + 0.04, x - 0.04), (-y + 0.03, y - 0.03), height, 1.0)
    return model


def sideboard(draws: Draws, palette: Palette) -> Model:
    """A low cupboard on legs."""
    width, depth, height = draws.uniform(1.0, 1.5), 0.42, draws.uniform(0.75, 0.85)
    model = Model("sideboard", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("two_doors", rgb)
    model.legs(x - 0.03, y - 0.02, 0.16, palette.black, half=0.025)
    model.box((-x, x), (-y, y), (0.16, height), wood, front=front)
    model.surface((-x + 0.04, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    return model


def tv_stand(draws: Draws, palette: Palette) -> Model:
    """A low cupboard with a television on it."""
    width, depth, height = draws.uniform(1.5, 1.8), 0.42, draws.uniform(0.45, 0.55)
    model = Model("tv_stand", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("two_doors", rgb)
    model.box((-x + 0.03, x - 0.03), (-y, y - 0.05), (0.0, 0.08), palette.black)
    model.box((-x, x), (-y, y), (0.08, height), wood, front=front)
    tv = Model("tv", draws.uniform(0.95, 1.15), 0.2)
    half, low = tv.width / 2, height + 0.08
    picture = palette.table.emblem("screen")
    tv.box((-0.2, 0.2), (-0.14, 0.02), (height, height + 0.02), palette.black)
    tv.box((-0.05, 0.05), (-0.1, -0.06), (height + 0.02, low), palette.black)
    tv.box((-half, half), (-0.1, -0.05), (low, low + 0.6 * tv.width), palette.black, front=picture)
    model.riders.append(tv)
    model.surface((-x + 0.04, x - 0.04), (0.04, y - 0.02), height, 1.5)
    model.surface((half + 0.04, x - 0.04), (-y + 0.04, y - 0.02), height, 1.5)
    model.surface((-x + 0.04, -half - 0.04), (-y + 0.04, y - 0.02), height, 1.5)
    return model


def console(draws: Draws, palette: Palette) -> Model:
    """A narrow table for hallways."""
    width, depth, height = draws.uniform(0.8, 1.1), 0.32, draws.uniform(0.75, 0.85)
    model = Model("console", width, depth)
    x, y = width / 2, depth / 2
    wood = palette.wood()
    model.legs(x, y, height - 0.04, palette.black, half=0.02)
    model.box((-x, x), (-y, y), (height - 0.04, height), wood)
    model.box((-x + 0.02, x - 0.02), (-y + 0.02, y - 0.02), (0.2, 0.23), wood)
    model.surface((-x + 0.03, x - 0.03), (-y + 0.03, y - 0.03), height, 1.5)
    return model


def toy_box(draws: Draws, palette: Palette) -> Model:
    """A gaudy chest with a ball on it."""
    width, depth, height = draws.uniform(0.7, 0.95), 0.45, draws.uniform(0.45, 0.55)
    model = Model("toy_box", width, depth)
    x, y = width / 2, depth / 2
    face = palette.table.emblem("toy_blocks")
    lid = palette.vivid()
    model.box((-x, x), (-y, y), (0.0, height - 0.06), lid, front=face, sides=face)
    model.box((-x, x), (-y, y), (height - 0.06, height), lid)
    model.ball((-x + 0.15, -y + 0.16, height + 0.11), (0.11, 0.11, 0.11), palette.vivid("stripes"))
    model.surface((-x + 0.3, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    return model


def basket(draws: Draws, palette: Palette) -> Model:
    """A round wicker basket with a lid."""
    radius, height = draws.uniform(0.2, 0.25), draws.uniform(0.5, 0.65)
    model = Model("basket", 2 * radius, 2 * radius)
    weave = palette.table.add(hsv(palette.hue(27, 42), 0.45, 0.78), "wicker", 0.3)
    model.cylinder((0.0, 0.0), (0.0, height - 0.05), radius * 0.92, weave)
    model.cylinder((0.0, 0.0), (height - 0.05, height), radius, palette.wood())
    half = radius * 0.65
    model.surface((-half, half), (-half, half), height, 1.5)
    return model


def trash_bin(draws: Draws, palette: Palette) -> Model:
    """A steel bin with a dark lid."""
    radius, height = draws.uniform(0.14, 0.17), draws.uniform(0.4, 0.6)
    model = Model("trash_bin", 2 * radius, 2 * radius)
    model.cylinder((0.0, 0.0), (0.0, height - 0.06), radius, palette.steel)
    model.cylinder((0.0, 0.0), (height - 0.06, height), radius * 0.95, palette.black)
    return model


def coat_rack(draws: Draws, palette: Palette) -> Model:
    """A pole with hanging coats."""
    model = Model("coat_rack", 0.5, 0.5)
    model.cylinder((0.0, 0.0), (0.0, 0.04), 0.22, palette.black)
    model.cylinder((0.0, 0.0), (0.04, draws.uniform(1.65, 1.8)), 0.03, palette.wood())
    for side in (-1, 1):
        coat = palette.table.add(palette.fabric_rgb())
        model.ball((side * 0.13, 0.0, 1.2), (0.12, 0.1, 0.38), coat)
    return model
