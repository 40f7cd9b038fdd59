"""Furniture that holds things, and what kitchens, bathrooms and laundries are fitted with."""

from __future__ import annotations

from typing import Final

from envs.houses.draws import Draws
from envs.houses.furniture.piece import Piece
from envs.houses.textures.palette import Palette, hsv

COUNTER_DEPTH: Final = 0.6
COUNTER_HEIGHT: Final = 0.9


def _table_lamp(palette: Palette, x: float, y: float, z: float) -> Piece:
    """A lamp that rides on another piece, at a place in that piece's frame."""
    piece = Piece("lamp", 0.26, 0.26)
    shade = palette.table.add((1.0, 0.93, 0.7))
    piece.cylinder((x, y), (z, z + 0.2), 0.035, palette.brass)
    piece.cylinder((x, y), (z + 0.2, z + 0.42), 0.13, shade)
    return piece


def nightstand(draws: Draws, palette: Palette) -> Piece:
    """A small chest of drawers, sometimes with a lamp."""
    width, depth, height = draws.uniform(0.42, 0.5), 0.4, draws.uniform(0.48, 0.58)
    piece = Piece("nightstand", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("drawers", rgb)
    piece.legs(x - 0.01, y - 0.01, 0.1, wood, half=0.02)
    piece.box((-x + 0.01, x - 0.01), (-y, y - 0.01), (0.1, height - 0.03), wood, front=front)
    piece.box((-x, x), (-y, y), (height - 0.03, height), wood)
    if draws.chance(0.4):
        piece.riders.append(_table_lamp(palette, -x + 0.14, -y + 0.14, height))
        piece.surface((-x + 0.04, x - 0.04), (0.07, y - 0.03), height, 1.5)
    else:
        piece.surface((-x + 0.04, x - 0.04), (-y + 0.03, y - 0.03), height, 1.5)
    return piece


def dresser(draws: Draws, palette: Palette) -> Piece:
    """A broad chest of drawers."""
    width, depth, height = draws.uniform(0.9, 1.3), 0.46, draws.uniform(0.78, 0.9)
    piece = Piece("dresser", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("many_drawers", rgb)
    piece.box((-x + 0.03, x - 0.03), (-y, y - 0.04), (0.0, 0.08), palette.black)
    piece.box((-x + 0.01, x - 0.01), (-y, y - 0.01), (0.08, height - 0.04), wood, front=front)
    piece.box((-x, x), (-y, y), (height - 0.04, height), wood)
    if draws.chance(0.4):
        piece.riders.append(_table_lamp(palette, -x + 0.2, -0.05, height))
        piece.surface((-x + 0.4, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    else:
        piece.surface((-x + 0.04, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    return piece


def wardrobe(draws: Draws, palette: Palette) -> Piece:
    """A tall cupboard with two doors."""
    width, depth, height = draws.uniform(0.95, 1.4), 0.6, draws.uniform(1.95, 2.15)
    piece = Piece("wardrobe", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 1.2), palette.table.emblem("two_doors", rgb)
    piece.box((-x + 0.03, x - 0.03), (-y, y - 0.05), (0.0, 0.08), palette.black)
    piece.box((-x + 0.01, x - 0.01), (-y, y - 0.02), (0.08, height - 0.06), wood, front=front)
    piece.box((-x, x), (-y, y), (height - 0.06, height), wood)
    return piece


def bookshelf(draws: Draws, palette: Palette) -> Piece:
    """Open shelves, some filled with books, some free."""
    width, depth = draws.uniform(0.8, 1.1), 0.32
    levels = draws.integer(3, 5)
    gap, board = 0.37, 0.03
    height = levels * gap + board
    piece = Piece("bookshelf", width, depth)
    x, y = width / 2, depth / 2
    wood = palette.wood()
    piece.mirrored_boxes((x - 0.03, x), (-y, y), (0.0, height), wood)
    piece.box((-x + 0.03, x - 0.03), (-y, -y + 0.02), (0.0, height), wood)
    free = {0, draws.integer(1, 2)} if levels == 3 else {draws.integer(0, 1), 2}
    for level in range(levels + 1):
        z = level * gap
        piece.box((-x + 0.03, x - 0.03), (-y + 0.02, y), (z, z + board), wood)
        if level == levels:
            break
        inside = (-x + 0.03, x - 0.03)
        if level in free:
            piece.surface(inside, (-y + 0.05, y - 0.02), z + board, gap - board)
        else:
            row = palette.table.emblem(palette.pick(("books", "more_books")))
            piece.box(inside, (-y + 0.02, y - 0.08), (z + board, z + 0.3), row)
    if height < 1.3:
        piece.surface((-x + 0.04, x - 0.04), (-y + 0.03, y - 0.03), height, 1.0)
    return piece


def sideboard(draws: Draws, palette: Palette) -> Piece:
    """A low cupboard on legs."""
    width, depth, height = draws.uniform(1.0, 1.5), 0.42, draws.uniform(0.75, 0.85)
    piece = Piece("sideboard", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("two_doors", rgb)
    piece.legs(x - 0.03, y - 0.02, 0.16, palette.black, half=0.025)
    piece.box((-x, x), (-y, y), (0.16, height), wood, front=front)
    piece.surface((-x + 0.04, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    return piece


def tv_stand(draws: Draws, palette: Palette) -> Piece:
    """A low cupboard with a television on it."""
    width, depth, height = draws.uniform(1.5, 1.8), 0.42, draws.uniform(0.45, 0.55)
    piece = Piece("tv_stand", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood, front = palette.table.add(rgb, "wood", 0.9), palette.table.emblem("two_doors", rgb)
    piece.box((-x + 0.03, x - 0.03), (-y, y - 0.05), (0.0, 0.08), palette.black)
    piece.box((-x, x), (-y, y), (0.08, height), wood, front=front)
    tv = Piece("tv", draws.uniform(0.95, 1.15), 0.2)
    half, low = tv.width / 2, height + 0.08
    picture = palette.table.emblem("screen")
    tv.box((-0.2, 0.2), (-0.14, 0.02), (height, height + 0.02), palette.black)
    tv.box((-0.05, 0.05), (-0.1, -0.06), (height + 0.02, low), palette.black)
    tv.box((-half, half), (-0.1, -0.05), (low, low + 0.6 * tv.width), palette.black, front=picture)
    piece.riders.append(tv)
    piece.surface((-x + 0.04, x - 0.04), (0.04, y - 0.02), height, 1.5)
    piece.surface((half + 0.04, x - 0.04), (-y + 0.04, y - 0.02), height, 1.5)
    piece.surface((-x + 0.04, -half - 0.04), (-y + 0.04, y - 0.02), height, 1.5)
    return piece


def console(draws: Draws, palette: Palette) -> Piece:
    """A narrow table for hallways."""
    width, depth, height = draws.uniform(0.8, 1.1), 0.32, draws.uniform(0.75, 0.85)
    piece = Piece("console", width, depth)
    x, y = width / 2, depth / 2
    wood = palette.wood()
    piece.legs(x, y, height - 0.04, palette.black, half=0.02)
    piece.box((-x, x), (-y, y), (height - 0.04, height), wood)
    piece.box((-x + 0.02, x - 0.02), (-y + 0.02, y - 0.02), (0.2, 0.23), wood)
    piece.surface((-x + 0.03, x - 0.03), (-y + 0.03, y - 0.03), height, 1.5)
    return piece


def toy_box(draws: Draws, palette: Palette) -> Piece:
    """A gaudy chest with a ball on it."""
    width, depth, height = draws.uniform(0.7, 0.95), 0.45, draws.uniform(0.45, 0.55)
    piece = Piece("toy_box", width, depth)
    x, y = width / 2, depth / 2
    face = palette.table.emblem("toy_blocks")
    lid = palette.vivid()
    piece.box((-x, x), (-y, y), (0.0, height - 0.06), lid, front=face, sides=face)
    piece.box((-x, x), (-y, y), (height - 0.06, height), lid)
    piece.ball((-x + 0.15, -y + 0.16, height + 0.11), (0.11, 0.11, 0.11), palette.vivid("stripes"))
    piece.surface((-x + 0.3, x - 0.04), (-y + 0.04, y - 0.03), height, 1.5)
    return piece


def basket(draws: Draws, palette: Palette) -> Piece:
    """A round wicker basket with a lid."""
    radius, height = draws.uniform(0.2, 0.25), draws.uniform(0.5, 0.65)
    piece = Piece("basket", 2 * radius, 2 * radius)
    weave = palette.table.add(hsv(palette.hue(27, 42), 0.45, 0.78), "wicker", 0.3)
    piece.cylinder((0.0, 0.0), (0.0, height - 0.05), radius * 0.92, weave)
    piece.cylinder((0.0, 0.0), (height - 0.05, height), radius, palette.wood())
    half = radius * 0.65
    piece.surface((-half, half), (-half, half), height, 1.5)
    return piece


def trash_bin(draws: Draws, palette: Palette) -> Piece:
    """A steel bin with a dark lid."""
    radius, height = draws.uniform(0.14, 0.17), draws.uniform(0.4, 0.6)
    piece = Piece("trash_bin", 2 * radius, 2 * radius)
    piece.cylinder((0.0, 0.0), (0.0, height - 0.06), radius, palette.steel)
    piece.cylinder((0.0, 0.0), (height - 0.06, height), radius * 0.95, palette.black)
    return piece


def coat_rack(draws: Draws, palette: Palette) -> Piece:
    """A pole with hanging coats."""
    piece = Piece("coat_rack", 0.5, 0.5)
    piece.cylinder((0.0, 0.0), (0.0, 0.04), 0.22, palette.black)
    piece.cylinder((0.0, 0.0), (0.04, draws.uniform(1.65, 1.8)), 0.03, palette.wood())
    for side in (-1, 1):
        coat = palette.table.add(palette.fabric_rgb())
        piece.ball((side * 0.13, 0.0, 1.2), (0.12, 0.1, 0.38), coat)
    return piece


def _base(piece: Piece, palette: Palette, front: int) -> None:
    """Add the plinth, body and worktop that kitchen modules share."""
    x, y = piece.width / 2, piece.depth / 2
    body = palette.table.add(palette.front_rgb)
    piece.box((-x, x), (-y, y - 0.06), (0.0, 0.1), palette.black)
    piece.box((-x, x), (-y, y - 0.02), (0.1, 0.86), body, front=front)
    piece.box((-x, x), (-y, y), (0.86, COUNTER_HEIGHT), palette.stone)


def _wall_cabinet(piece: Piece, palette: Palette) -> Piece:
    """A cupboard above the worktop."""
    cabinet = Piece("cabinet", piece.width, 0.34)
    x, y = piece.width / 2, -piece.depth / 2
    body = palette.table.add(palette.front_rgb)
    cabinet.box((-x, x), (y, y + 0.34), (1.5, 2.15), body, front=palette.front("two_doors"))
    return cabinet


def counter(draws: Draws, palette: Palette, width: float = 0.6) -> Piece:
    """A kitchen cupboard with a worktop, as wide as asked for."""
    piece = Piece("counter", width, COUNTER_DEPTH)
    many = "two_doors" if width > 0.7 else palette.pick(("drawers", "one_door"))
    _base(piece, palette, palette.front(many))
    x, y = width / 2, piece.depth / 2
    if draws.chance(0.6):
        piece.riders.append(_wall_cabinet(piece, palette))
    piece.surface((-x + 0.03, x - 0.03), (-y + 0.05, y - 0.03), COUNTER_HEIGHT, 0.58)
    return piece


def kitchen_sink(draws: Draws, palette: Palette) -> Piece:
    """A basin in a worktop, with a tap."""
    piece = Piece("sink", draws.uniform(0.75, 0.9), COUNTER_DEPTH)
    _base(piece, palette, palette.front("two_doors"))
    half, z = 0.24, COUNTER_HEIGHT
    piece.box((-half, half), (-0.2, 0.22), (z, z + 0.012), palette.steel)
    dark = palette.table.add((0.3, 0.31, 0.33))
    piece.box((-half + 0.04, half - 0.04), (-0.16, 0.18), (z + 0.012, z + 0.016), dark)
    piece.box((-0.02, 0.02), (-0.26, -0.22), (z, z + 0.28), palette.steel)
    piece.box((-0.02, 0.02), (-0.26, -0.04), (z + 0.25, z + 0.28), palette.steel)
    return piece


def stove(draws: Draws, palette: Palette) -> Piece:
    """An oven with a hob below an extractor hood."""
    piece = Piece("stove", 0.6, 0.62)
    steel = palette.steel if draws.chance(0.5) else palette.white
    oven, hob = palette.table.emblem("oven_door"), palette.table.emblem("hob")
    piece.box((-0.3, 0.3), (-0.31, 0.31), (0.02, COUNTER_HEIGHT), steel, front=oven, top=hob)
    piece.box((-0.3, 0.3), (-0.31, -0.26), (COUNTER_HEIGHT, 1.05), steel)
    hood = Piece("hood", 0.6, 0.45)
    hood.box((-0.3, 0.3), (-0.31, 0.15), (1.6, 1.72), palette.steel)
    hood.box((-0.13, 0.13), (-0.31, -0.05), (1.72, 2.4), palette.steel)
    piece.riders.append(hood)
    return piece


def fridge(draws: Draws, palette: Palette) -> Piece:
    """A tall fridge with a freezer."""
    piece = Piece("fridge", draws.uniform(0.68, 0.78), 0.68)
    x, y, height = piece.width / 2, piece.depth / 2, draws.uniform(1.7, 1.9)
    rgb = draws.choice(((0.95, 0.95, 0.95), (0.66, 0.68, 0.71), (0.75, 0.2, 0.2)))
    shell = palette.table.add(rgb)
    piece.box((-x, x), (-y, y - 0.08), (0.03, height), shell)
    door = palette.table.emblem("fridge_door", rgb)
    piece.box((-x, x), (y - 0.08, y), (0.06, height), shell, front=door)
    return piece


def washing_machine(draws: Draws, palette: Palette) -> Piece:
    """A front loader; objects may lie on top."""
    piece = Piece("washing_machine", 0.6, 0.6)
    front = palette.table.emblem("washer_door")
    piece.box((-0.3, 0.3), (-0.3, 0.3), (0.02, 0.82), palette.white, front=front)
    piece.box((-0.3, 0.3), (-0.3, 0.3), (0.82, 0.85), palette.table.add((0.8, 0.81, 0.83)))
    piece.surface((-0.25, 0.25), (-0.25, 0.27), 0.85, 1.0)
    return piece


def vanity(draws: Draws, palette: Palette) -> Piece:
    """A washbasin on a cupboard below a mirror."""
    piece = Piece("sink", draws.uniform(0.8, 1.2), 0.5)
    x, y, z = piece.width / 2, piece.depth / 2, 0.84
    body, front = palette.table.add(palette.front_rgb), palette.front("two_doors")
    piece.box((-x, x), (-y, y - 0.02), (0.12, 0.8), body, front=front)
    piece.box((-x, x), (-y, y), (0.8, z), palette.stone)
    piece.cylinder((0.0, 0.02), (z, z + 0.1), 0.19, palette.white)
    water = palette.table.add((0.45, 0.65, 0.75))
    piece.cylinder((0.0, 0.02), (z + 0.1, z + 0.104), 0.155, water)
    piece.box((-0.02, 0.02), (-y + 0.02, -y + 0.06), (z, z + 0.22), palette.steel)
    piece.box((-0.02, 0.02), (-y + 0.02, -y + 0.16), (z + 0.19, z + 0.22), palette.steel)
    piece.riders.append(_wall_mirror(palette, draws.uniform(0.6, 0.8), -y))
    for side in (-1, 1):
        low, high = sorted((side * 0.23, side * (x - 0.03)))
        piece.surface((low, high), (-y + 0.04, y - 0.03), z, 0.3)
    return piece


def _wall_mirror(palette: Palette, width: float, back: float) -> Piece:
    """A mirror that hangs with its back at y = back."""
    piece = Piece("mirror", width, 0.04)
    glass = palette.table.emblem("mirror")
    piece.box((-width / 2, width / 2), (back, back + 0.03), (1.15, 1.9), palette.steel, front=glass)
    return piece


def toilet(draws: Draws, palette: Palette) -> Piece:
    """A bowl on a foot with a lid and a tank."""
    piece = Piece("toilet", 0.4, 0.68)
    white = palette.white
    piece.box((-0.11, 0.11), (-0.2, 0.16), (0.0, 0.2), white)
    piece.ball((0.0, 0.07, 0.3), (0.19, 0.26, 0.14), white)
    lid = palette.table.add((0.8, 0.82, 0.84) if draws.chance(0.5) else (0.45, 0.3, 0.2))
    piece.cylinder((0.0, 0.06), (0.4, 0.44), 0.2, lid)
    piece.box((-0.2, 0.2), (-0.34, -0.16), (0.36, 0.78), white)
    piece.surface((-0.17, 0.17), (-0.32, -0.18), 0.78, 1.0)
    return piece


def bathtub(draws: Draws, palette: Palette) -> Piece:
    """Four walls around water, with a tap."""
    piece = Piece("bathtub", draws.uniform(1.5, 1.7), 0.75)
    x, y, z = piece.width / 2, 0.375, 0.56
    white = palette.white
    for side in (-1, 1):
        low, high = sorted((side * x, side * (x - 0.09)))
        piece.box((low, high), (-y, y), (0.0, z), white)
        low, high = sorted((side * y, side * (y - 0.08)))
        piece.box((-x + 0.09, x - 0.09), (low, high), (0.0, z), white)
    water = palette.table.add((0.42, 0.72, 0.82))
    piece.box((-x + 0.09, x - 0.09), (-y + 0.08, y - 0.08), (0.0, 0.4), water)
    piece.box((x - 0.2, x - 0.16), (-y, -y + 0.16), (z + 0.1, z + 0.14), palette.steel)
    return piece


def shower(draws: Draws, palette: Palette) -> Piece:
    """A tray with a rear panel and a head on a pipe."""
    side = draws.uniform(0.85, 0.95)
    piece = Piece("shower", side, side)
    half = side / 2
    tiles = palette.table.add((0.55, 0.75, 0.85), "mosaic", 0.5)
    piece.box((-half, half), (-half, half), (0.0, 0.1), palette.white)
    piece.box((-half, half), (-half, -half + 0.03), (0.1, 2.1), tiles)
    piece.mirrored_boxes((half - 0.04, half), (half - 0.04, half), (0.1, 2.1), palette.steel)
    piece.box((-half, half), (half - 0.04, half), (2.06, 2.1), palette.steel)
    piece.box((-0.02, 0.02), (-half + 0.03, -half + 0.07), (0.9, 2.0), palette.steel)
    piece.cylinder((0.0, -half + 0.2), (1.94, 1.98), 0.12, palette.steel)
    return piece


def towel_rail(draws: Draws, palette: Palette) -> Piece:
    """A towel that hangs on the wall."""
    piece = Piece("towel", draws.uniform(0.45, 0.65), 0.08)
    x = piece.width / 2
    cloth = palette.vivid("lying_stripes", 0.4)
    piece.box((-x, x), (-0.04, 0.0), (1.28, 1.32), palette.steel)
    piece.box((-x + 0.05, x - 0.05), (-0.03, 0.02), (0.75, 1.34), cloth)
    return piece
