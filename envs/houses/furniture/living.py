"""Furniture of living rooms, bedrooms and studies, and what decorates any room."""

from __future__ import annotations

from envs.houses.draws import Draws
from envs.houses.furniture.piece import Piece
from envs.houses.textures.palette import Palette


def bed(draws: Draws, palette: Palette) -> Piece:
    """A frame, mattress, cover, pillows and a padded headboard."""
    width, depth = draws.choice((1.0, 1.4, 1.6, 1.8)), draws.uniform(2.0, 2.1)
    piece = Piece("bed", width, depth)
    x, y = width / 2, depth / 2
    piece.box((-x, x), (-y, y), (0.06, 0.28), palette.wood())
    piece.box((-x + 0.02, x - 0.02), (-y + 0.06, y - 0.03), (0.28, 0.48), palette.white)
    tile = palette.pick(("plain", "plaid", "stripes", "quilt", "dots"))
    cover = palette.table.add(palette.fabric_rgb(), tile, 0.8)
    piece.box((-x, x), (-y + 0.65, y), (0.26, 0.53), cover)
    pillow = palette.table.emblem("pillow", (0.98, 0.96, 0.92))
    count = 1 if width < 1.3 else 2
    for i in range(count):
        middle = (i - (count - 1) / 2) * (width / count)
        half = width / count / 2 - 0.08
        piece.box((middle - half, middle + half), (-y + 0.12, -y + 0.5), (0.48, 0.6), pillow)
    head = palette.table.emblem("headboard", palette.fabric_rgb())
    piece.box((-x, x), (-y, -y + 0.06), (0.0, draws.uniform(0.95, 1.2)), head)
    piece.surface((-x + 0.1, x - 0.1), (-y + 0.75, y - 0.1), 0.53, 1.5)
    return piece


def sofa(draws: Draws, palette: Palette) -> Piece:
    """A long seat with cushions, a back and two arms."""
    width, depth = draws.choice((1.7, 2.0, 2.3)), draws.uniform(0.85, 0.95)
    return _padded_seat("sofa", width, depth, palette, cushions=2 if width < 1.9 else 3)


def armchair(draws: Draws, palette: Palette) -> Piece:
    """A padded seat for one."""
    return _padded_seat("armchair", draws.uniform(0.8, 0.9), 0.82, palette, cushions=1)


def _padded_seat(
    category: str, width: float, depth: float, palette: Palette, *, cushions: int
) -> Piece:
    piece = Piece(category, width, depth)
    x, y = width / 2, depth / 2
    rgb = palette.fabric_rgb()
    tile = palette.pick(("plain", "plain", "plaid", "thin_stripes"))
    cloth = palette.table.add(rgb, tile, 0.6)
    lighter = (min(1.0, rgb[0] * 1.2), min(1.0, rgb[1] * 1.2), min(1.0, rgb[2] * 1.2))
    pad = palette.table.emblem("pillow", lighter)
    piece.box((-x, x), (-y, y - 0.04), (0.06, 0.3), cloth)
    piece.box((-x, x), (-y, -y + 0.22), (0.3, 0.88), cloth)
    piece.mirrored_boxes((x - 0.17, x), (-y + 0.22, y - 0.02), (0.3, 0.62), cloth)
    seat = (width - 0.34) / cushions
    for i in range(cushions):
        left = -x + 0.17 + i * seat
        piece.box((left + 0.005, left + seat - 0.005), (-y + 0.22, y), (0.3, 0.45), pad)
    piece.surface((-x + 0.24, x - 0.24), (-y + 0.32, y - 0.08), 0.45, 1.5)
    return piece


def coffee_table(draws: Draws, palette: Palette) -> Piece:
    """A low table: four legs and a shelf, or a round top on a column."""
    wood, height = palette.wood(), draws.uniform(0.38, 0.48)
    if draws.chance(0.35):
        radius = draws.uniform(0.4, 0.5)
        piece = Piece("coffee_table", 2 * radius, 2 * radius)
        piece.cylinder((0.0, 0.0), (0.0, 0.04), radius * 0.6, wood)
        piece.cylinder((0.0, 0.0), (0.04, height - 0.05), 0.08, palette.steel)
        piece.cylinder((0.0, 0.0), (height - 0.05, height), radius, wood)
        half = radius * 0.65
        piece.surface((-half, half), (-half, half), height, 1.5)
        return piece
    piece = Piece("coffee_table", draws.uniform(0.9, 1.2), draws.uniform(0.5, 0.6))
    x, y = piece.width / 2, piece.depth / 2
    piece.legs(x, y, height - 0.05, wood)
    piece.box((-x, x), (-y, y), (height - 0.05, height), wood)
    piece.box((-x + 0.06, x - 0.06), (-y + 0.04, y - 0.04), (0.12, 0.15), wood)
    piece.surface((-x + 0.04, x - 0.04), (-y + 0.04, y - 0.04), height, 1.5)
    return piece


def table(draws: Draws, palette: Palette) -> Piece:
    """A dining table, square-cornered or round."""
    wood, height = palette.wood(), 0.75
    if draws.chance(0.3):
        radius = draws.uniform(0.5, 0.6)
        piece = Piece("table", 2 * radius, 2 * radius)
        piece.cylinder((0.0, 0.0), (0.0, 0.05), radius * 0.55, wood)
        piece.cylinder((0.0, 0.0), (0.05, height - 0.05), 0.07, wood)
        piece.cylinder((0.0, 0.0), (height - 0.05, height), radius, wood)
        half = radius * 0.66
        piece.surface((-half, half), (-half, half), height, 1.5)
        return piece
    piece = Piece("table", draws.choice((1.2, 1.5, 1.8)), draws.uniform(0.8, 0.95))
    x, y = piece.width / 2, piece.depth / 2
    piece.legs(x - 0.03, y - 0.03, height - 0.05, wood, half=0.035)
    top = wood
    if draws.chance(0.3):
        cloth = palette.pick(("plaid", "checker", "lying_stripes"))
        top = palette.table.add(palette.fabric_rgb(), cloth, 0.5)
    piece.box((-x, x), (-y, y), (height - 0.05, height), wood, top=top)
    piece.surface((-x + 0.04, x - 0.04), (-y + 0.04, y - 0.04), height, 1.5)
    return piece


def chair(draws: Draws, palette: Palette) -> Piece:
    """A wooden chair; it looks along +y like all else, so its back is at the least y."""
    piece = Piece("chair", 0.42, 0.44)
    wood = palette.wood()
    seat = palette.table.add(palette.fabric_rgb()) if draws.chance(0.5) else wood
    piece.legs(0.2, 0.21, 0.42, wood, half=0.02)
    piece.box((-0.21, 0.21), (-0.22, 0.22), (0.42, 0.47), seat)
    piece.box((-0.21, 0.21), (-0.22, -0.18), (0.47, 0.92), wood, front=seat)
    piece.surface((-0.2, 0.2), (-0.17, 0.21), 0.47, 1.0)
    return piece


def stool(draws: Draws, palette: Palette) -> Piece:
    """A round seat on a foot."""
    radius = draws.uniform(0.17, 0.2)
    piece = Piece("stool", 2 * radius, 2 * radius)
    piece.cylinder((0.0, 0.0), (0.0, 0.04), radius * 0.9, palette.steel)
    piece.cylinder((0.0, 0.0), (0.04, 0.44), 0.04, palette.steel)
    piece.cylinder((0.0, 0.0), (0.44, 0.5), radius, palette.table.add(palette.fabric_rgb()))
    piece.surface((-0.13, 0.13), (-0.13, 0.13), 0.5, 1.0)
    return piece


def bench(draws: Draws, palette: Palette) -> Piece:
    """A narrow bench with a padded top."""
    piece = Piece("bench", draws.uniform(0.9, 1.2), 0.38)
    x = piece.width / 2
    wood = palette.wood()
    cloth = palette.table.add(palette.fabric_rgb(), palette.pick(("plain", "stripes")), 0.4)
    piece.mirrored_boxes((x * 0.85 - 0.04, x * 0.85 + 0.04), (-0.17, 0.17), (0, 0.4), wood)
    piece.box((-x, x), (-0.19, 0.19), (0.4, 0.48), cloth)
    piece.surface((-x + 0.05, x - 0.05), (-0.15, 0.15), 0.48, 1.0)
    return piece


def desk(draws: Draws, palette: Palette) -> Piece:
    """A table with a drawer unit and a computer."""
    width, depth, height = draws.uniform(1.2, 1.5), draws.uniform(0.62, 0.72), 0.74
    piece = Piece("desk", width, depth)
    x, y, rgb = width / 2, depth / 2, palette.wood_rgb()
    wood = palette.table.add(rgb, "wood", 0.9)
    piece.box((-x, x), (-y, y), (height - 0.04, height), wood)
    piece.box(
        (x - 0.42, x - 0.02),
        (-y + 0.04, y - 0.04),
        (0.02, height - 0.04),
        wood,
        front=palette.table.emblem("drawers", rgb),
    )
    piece.box((-x + 0.02, -x + 0.06), (-y + 0.04, y - 0.04), (0.0, height - 0.04), wood)
    at = -0.15 * width
    computer = Piece("computer", 0.56, 0.3)
    bezel, glow = palette.black, palette.table.emblem("desktop")
    computer.box((at - 0.1, at + 0.1), (-y + 0.08, -y + 0.26), (height, height + 0.02), bezel)
    computer.box(
        (at - 0.28, at + 0.28), (-y + 0.14, -y + 0.18), (height + 0.06, height + 0.42), bezel,
        front=glow,
    )  # fmt: skip
    computer.box((at - 0.22, at + 0.22), (y - 0.26, y - 0.12), (height, height + 0.02), bezel)
    piece.riders.append(computer)
    piece.surface((at + 0.32, x - 0.04), (-y + 0.05, y - 0.04), height, 1.5)
    return piece


def office_chair(draws: Draws, palette: Palette) -> Piece:
    """A swivel chair on a star foot."""
    piece = Piece("office_chair", 0.5, 0.5)
    cloth = palette.table.add(palette.fabric_rgb())
    piece.box((-0.24, 0.24), (-0.04, 0.04), (0.02, 0.07), palette.black)
    piece.box((-0.04, 0.04), (-0.24, 0.24), (0.02, 0.07), palette.black)
    piece.cylinder((0.0, 0.0), (0.07, 0.42), 0.04, palette.steel)
    piece.cylinder((0.0, 0.0), (0.42, 0.5), 0.24, cloth)
    piece.box((-0.22, 0.22), (-0.25, -0.19), (0.55, draws.uniform(0.95, 1.1)), cloth)
    return piece


def piano(draws: Draws, palette: Palette) -> Piece:
    """An upright piano with its stool."""
    piece = Piece("piano", 1.45, 0.6, keeps_yaw=True)
    rgb = draws.choice(((0.07, 0.06, 0.06), (0.3, 0.16, 0.09)))
    lacquer = palette.table.add(rgb)
    piece.box((-0.72, 0.72), (-0.3, 0.05), (0.02, 1.22), lacquer)
    keys = palette.table.emblem("piano_keys")
    piece.box((-0.72, 0.72), (0.05, 0.3), (0.6, 0.74), lacquer, top=keys)
    piece.mirrored_boxes((0.66 - 0.05, 0.66 + 0.05), (0.18, 0.28), (0.0, 0.6), lacquer)
    piece.surface((-0.66, 0.66), (-0.26, 0.02), 1.22, 1.0)
    return piece


def floor_lamp(draws: Draws, palette: Palette) -> Piece:
    """A shade on a pole."""
    piece = Piece("lamp", 0.36, 0.36)
    height = draws.uniform(1.5, 1.7)
    shade = palette.table.add((1.0, 0.92, 0.66))
    piece.cylinder((0.0, 0.0), (0.0, 0.03), 0.15, palette.black)
    piece.cylinder((0.0, 0.0), (0.03, height - 0.28), 0.02, palette.brass)
    piece.cylinder((0.0, 0.0), (height - 0.28, height), 0.18, shade)
    return piece


def plant(draws: Draws, palette: Palette) -> Piece:
    """Foliage in a pot: a bush, a small tree or tall leaves."""
    piece = Piece("plant", 0.44, 0.44)
    pot = palette.vivid() if draws.chance(0.5) else palette.table.add((0.72, 0.4, 0.25))
    leaf, form = palette.leaf(), draws.integer(0, 2)
    piece.cylinder((0.0, 0.0), (0.0, 0.3), 0.16, pot)
    earth = palette.table.add((0.2, 0.13, 0.08))
    piece.cylinder((0.0, 0.0), (0.3, 0.31), 0.14, earth)
    if form == 0:
        piece.ball((0.0, 0.0, 0.6), (0.22, 0.22, 0.32), leaf)
        piece.ball((0.05, -0.04, 0.85), (0.14, 0.14, 0.2), leaf)
    elif form == 1:
        top = draws.uniform(1.3, 1.6)
        piece.cylinder((0.0, 0.0), (0.31, top - 0.2), 0.025, palette.wood())
        piece.ball((0.0, 0.0, top), (0.22, 0.22, 0.26), leaf)
    else:
        for x, y, height in ((0.0, 0.0, 1.2), (0.1, 0.05, 0.95), (-0.09, 0.06, 0.85)):
            half = (height - 0.3) / 2
            piece.ball((x, y, 0.3 + half), (0.07, 0.07, half), leaf)
    return piece


def rug(draws: Draws, palette: Palette, width: float = 2.0, depth: float = 1.4) -> Piece:
    """A flat rug of a given size."""
    piece = Piece("rug", width, depth)
    tile = palette.pick(("rug_border", "rug_rings"))
    rgb = palette.fabric_rgb()
    top = palette.table.emblem(tile, rgb)
    if draws.chance(0.3):
        top = palette.table.add(rgb, palette.pick(("lying_stripes", "shag", "plaid")), 0.7)
    side = palette.table.add(rgb)
    piece.box((-width / 2, width / 2), (-depth / 2, depth / 2), (0.0, 0.012), side, top=top)
    return piece


def fireplace(draws: Draws, palette: Palette) -> Piece:
    """A brick hearth with a mantelpiece."""
    piece = Piece("fireplace", draws.uniform(1.2, 1.4), 0.4)
    x, y = piece.width / 2, 0.2
    brick = palette.table.add((0.72, 0.36, 0.27), "bricks", 0.6)
    piece.box((-x, x), (-y, y - 0.04), (0.0, 1.1), brick)
    fire = palette.table.emblem("fire")
    piece.box((-0.36, 0.36), (y - 0.04, y - 0.02), (0.08, 0.72), palette.black, front=fire)
    piece.box((-x, x), (-y, y), (1.1, 1.16), palette.wood())
    piece.box((-x + 0.2, x - 0.2), (-y, y - 0.12), (1.16, 2.5), brick)
    piece.surface((-x + 0.03, -x + 0.18), (-y + 0.03, y - 0.03), 1.16, 0.6)
    piece.surface((x - 0.18, x - 0.03), (-y + 0.03, y - 0.03), 1.16, 0.6)
    return piece


def radiator(draws: Draws, palette: Palette) -> Piece:
    """A ribbed heater."""
    piece = Piece("radiator", draws.uniform(0.7, 1.1), 0.1)
    x = piece.width / 2
    ribs = palette.table.add((0.95, 0.95, 0.93), "radiator", 0.5)
    piece.box((-x, x), (-0.05, 0.05), (0.12, 0.72), ribs)
    return piece


def window(draws: Draws, palette: Palette, width: float = 1.2) -> Piece:
    """A view of the garden between curtains, on an outer wall."""
    piece = Piece("window", width, 0.06)
    x, low = width / 2, draws.uniform(0.85, 1.0)
    glass, frame = palette.table.emblem("window"), palette.white
    piece.box((-x, x), (-0.03, 0.0), (low, low + 1.15), frame, front=glass)
    piece.box((-x - 0.04, x + 0.04), (-0.03, 0.03), (low - 0.05, low), frame)
    if draws.chance(0.65):
        curtain = Piece("curtain", width + 0.5, 0.08)
        cloth = palette.table.add(palette.fabric_rgb(), "curtain", 0.35)
        curtain.mirrored_boxes((x - 0.02, x + 0.22), (-0.03, 0.03), (low - 0.05, low + 1.3), cloth)
        piece.riders.append(curtain)
    return piece


def picture(draws: Draws, palette: Palette) -> Piece:
    """A framed painting."""
    width = draws.uniform(0.5, 0.9)
    piece = Piece("picture", width, 0.03)
    x, low, height = width / 2, draws.uniform(1.25, 1.4), draws.uniform(0.45, 0.65)
    art = palette.pick(("landscape", "abstract", "portrait", "flower_picture"))
    canvas = palette.table.emblem(art)
    piece.box((-x, x), (-0.015, 0.015), (low, low + height), palette.black, front=canvas)
    return piece


def clock(draws: Draws, palette: Palette) -> Piece:
    """A wall clock."""
    half = draws.uniform(0.15, 0.2)
    piece = Piece("clock", 2 * half, 0.04)
    dial = palette.table.emblem("clock")
    low = 1.6
    piece.box((-half, half), (-0.02, 0.02), (low, low + 2 * half), palette.black, front=dial)
    return piece


def wall_shelf(draws: Draws, palette: Palette) -> Piece:
    """A board on the wall with books on half of it."""
    piece = Piece("wall_shelf", draws.uniform(0.7, 1.0), 0.24)
    x, z = piece.width / 2, 1.45
    piece.box((-x, x), (-0.12, 0.12), (z, z + 0.03), palette.wood())
    row = palette.table.emblem(palette.pick(("books", "more_books")))
    piece.box((-x + 0.03, 0.1), (-0.12, 0.06), (z + 0.03, z + 0.27), row)
    return piece


def standing_mirror(draws: Draws, palette: Palette) -> Piece:
    """A tall mirror on the wall."""
    piece = Piece("mirror", draws.uniform(0.45, 0.6), 0.04)
    x = piece.width / 2
    glass = palette.table.emblem("mirror")
    piece.box((-x, x), (-0.02, 0.02), (0.35, 1.9), palette.wood(), front=glass)
    return piece
