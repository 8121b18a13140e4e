"""Scene -> picture. Shapes are drawn large and reduced, for smooth edges."""

from math import cos, pi, sin
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sia.data.corpora.scenes.grammar import Scene, Thing

Point = tuple[float, float]

SCALE = 3  # drawn pixels per pixel of the picture
MARGIN = 0.07  # of the side, left free all round because the training crops there

COLOURS = {
    "red": (222, 42, 48),
    "green": (44, 168, 74),
    "blue": (44, 92, 226),
    "yellow": (248, 212, 48),
    "purple": (150, 62, 190),
    "orange": (246, 136, 30),
}
BACKGROUNDS = {  # the colours at the top and at the bottom, and that of the specks
    "night": ((18, 20, 46), (52, 48, 92), (236, 232, 200)),
    "sand": ((238, 220, 178), (212, 184, 132), (176, 146, 98)),
    "snow": ((214, 228, 242), (250, 252, 255), (176, 200, 226)),
    "grass": ((134, 176, 108), (84, 134, 70), (58, 102, 48)),
}
RADIUS = {"small": 0.26, "large": 0.43}  # of the height that one object has
OUTLINE = (28, 26, 36)


def render(scene: Scene, side: int, random: Random) -> Image.Image:
    """An RGB picture of `side` x `side` pixels. `random` places the objects and the specks."""
    canvas = _background(scene.background, side * SCALE, random)
    row = side * SCALE * (1 - 2 * MARGIN) / len(scene.things)
    for place, thing in enumerate(scene.things):
        across = side * SCALE * random.uniform(0.32, 0.68)
        down = side * SCALE * MARGIN + row * (place + 0.5 + random.uniform(-0.05, 0.05))
        _draw_thing(canvas, thing, (across, down), row * RADIUS[thing.size])
    return canvas.resize((side, side), Image.Resampling.LANCZOS)


def _background(name: str, side: int, random: Random) -> Image.Image:
    top, bottom, speck = BACKGROUNDS[name]
    shade = Image.linear_gradient("L").resize((side, side))
    canvas = Image.composite(Image.new("RGB", (side, side), bottom), Image.new("RGB", (side, side), top), shade)
    draw = ImageDraw.Draw(canvas)
    for _ in range(70):
        x, y, length = random.uniform(0, side), random.uniform(0, side), random.uniform(1, 2) * SCALE
        slant = length if name == "grass" else 0
        draw.ellipse((x, y, x + length / 2, y + length / 2 + slant), fill=speck)
    return canvas


def _draw_thing(canvas: Image.Image, thing: Thing, centre: Point, radius: float) -> None:
    mask = Image.new("L", canvas.size)
    _draw_shape(ImageDraw.Draw(mask), thing.shape, centre, radius)
    shadow = ImageChops.offset(mask, SCALE, 2 * SCALE).filter(ImageFilter.GaussianBlur(SCALE))
    canvas.paste(OUTLINE, mask=shadow.point(lambda value: value // 3))
    canvas.paste(OUTLINE, mask=mask.filter(ImageFilter.MaxFilter(2 * SCALE - 1)))
    canvas.paste(_filling(thing, canvas.size, centre), mask=mask)


def _filling(thing: Thing, size: tuple[int, int], centre: Point) -> Image.Image:
    """A sheet of the object's colour and texture, the texture in a lighter tone."""
    colour = COLOURS[thing.colour]
    light = tuple(round(value + 0.75 * (255 - value)) for value in colour)
    sheet = Image.new("RGB", size, colour)
    draw, width, period = ImageDraw.Draw(sheet), size[0], 6 * SCALE
    first = (centre[0] % period, centre[1] % period)
    for x in range(-width, width, period):
        if thing.texture == "striped":
            start = first[0] + first[1] + x
            draw.line((start + width, 0, start, width), fill=light, width=2 * SCALE)
    return sheet


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float) -> None:
    if shape == "circle":
        x, y = centre
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    else:
        draw.polygon([(centre[0] + radius * x, centre[1] + radius * y) for x, y in OUTLINES[shape]], fill=255)


ARM = 0.36  # half the width of the cross's arms
CORNERS = [(-ARM, -1), (ARM, -1), (ARM, -ARM)]  # of the upper arm; the others are it, turned
STAR = (1.15, 0.5)  # the radii of its tips and of its notches

# Corners around (0, 0) within about the unit circle; y points down.
OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -1), (1.05, 0.85), (-1.05, 0.85)],
    "cross": CORNERS + [(-y, x) for x, y in CORNERS] + [(-x, -y) for x, y in CORNERS] + [(y, -x) for x, y in CORNERS],
    "star": [(STAR[i % 2] * sin(i * pi / 5), -STAR[i % 2] * cos(i * pi / 5)) for i in range(10)],
}
