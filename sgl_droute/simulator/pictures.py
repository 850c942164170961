"""
Draws the pictures that a simulated worker 'generates'. Needs Pillow.

Equal scenes give equal bytes. Nothing here is random: every choice follows from the scene.
"""

from __future__ import annotations

import colorsys
import math
import random
from io import BytesIO

from attrs import frozen
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

CANVAS = 1024
GRID = 32


@frozen
class Scene:
    """
    All that a picture depends on.

    Attributes:
        prompt: Words to write on it.
        key: Anything else that must change the picture: seed, weights, inputs.
        source: An image file to work from, for edits.
    """

    prompt: str
    key: str
    width: int
    height: int
    source: bytes | None = None


Colour = tuple[int, int, int]


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(scene: Scene) -> Image.Image:
    """
    The picture of *scene* at its full size.
    """
    chance = random.Random(f"{scene.prompt}\0{scene.key}")
    ratio = scene.width / scene.height
    size = (
        (CANVAS, max(1, round(CANVAS / ratio)))
        if ratio >= 1
        else (max(1, round(CANVAS * ratio)), CANVAS)
    )
    hue = chance.random()
    picture = _sky(size, hue, chance)
    _sun(picture, hue, chance)
    _hills(picture, hue, chance)
    if scene.source is not None:
        picture = _framed(picture, scene.source)
    _caption(picture, scene.prompt)
    if picture.size != (scene.width, scene.height):
        picture = picture.resize((scene.width, scene.height), Image.Resampling.BILINEAR)
    return picture


def _sky(size: tuple[int, int], hue: float, chance: random.Random) -> Image.Image:
    dusk = chance.uniform(0.05, 0.18)
    top = Image.new("RGB", size, _colour(hue, 0.75, 0.35))
    bottom = Image.new("RGB", size, _colour(hue + dusk, 0.45, 1.0))
    return Image.composite(bottom, top, Image.linear_gradient("L").resize(size))


def _sun(picture: Image.Image, hue: float, chance: random.Random) -> None:
    width, height = picture.size
    unit = min(width, height)
    x, y = chance.uniform(0.2, 0.8) * width, chance.uniform(0.18, 0.45) * height
    radius = chance.uniform(0.07, 0.14) * unit
    small = (max(1, width // 8), max(1, height // 8))
    glow = Image.new("RGB", small)
    halo = 2.2 * radius
    box = [(x - halo) / 8, (y - halo) / 8, (x + halo) / 8, (y + halo) / 8]
    ImageDraw.Draw(glow).ellipse(box, fill=_colour(hue + 0.1, 0.6, 0.5))
    glow = glow.filter(ImageFilter.GaussianBlur(unit / 90)).resize(picture.size)
    picture.paste(ImageChops.add(picture, glow))
    pen = ImageDraw.Draw(picture)
    pen.ellipse(
        [x - radius, y - radius, x + radius, y + radius], fill=_colour(hue + 0.12, 0.15, 1.0)
    )


def _hills(picture: Image.Image, hue: float, chance: random.Random) -> None:
    width, height = picture.size
    pen = ImageDraw.Draw(picture)
    layers = 5
    for layer in range(layers):
        base = height * (0.52 + 0.1 * layer)
        waves = [
            (
                chance.uniform(1.0, 3.5),
                chance.uniform(0, math.tau),
                chance.uniform(0.01, 0.05) * height,
            )
            for _ in range(3)
        ]
        ridge = [
            (x, base + sum(a * math.sin(f * math.tau * x / width + p) for f, p, a in waves))
            for x in range(0, width + 8, 8)
        ]
        depth = layer / (layers - 1)
        shade = _colour(hue - 0.04 - 0.05 * depth, 0.45 + 0.35 * depth, 0.72 - 0.56 * depth)
        pen.polygon([*ridge, (width + 8, height), (0, height)], fill=shade)


def _framed(picture: Image.Image, source: bytes) -> Image.Image:
    """
    *picture* with the input image hung in it; unchanged when the input cannot be read.
    """
    try:
        inset = Image.open(BytesIO(source)).convert("RGB")
    except (OSError, ValueError):
        return picture
    inset.thumbnail((picture.width // 2, picture.height // 2))
    left, top = (picture.width - inset.width) // 2, (picture.height - inset.height) // 3
    edge = max(2, picture.width // 100)
    box = [left - edge, top - edge, left + inset.width + edge, top + inset.height + edge]
    ImageDraw.Draw(picture).rectangle(box, fill=(250, 248, 242))
    picture.paste(inset, (left, top))
    return picture


def _caption(picture: Image.Image, prompt: str) -> None:
    width, height = picture.size
    size = max(10, min(width, height) // 18)
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(picture)
    lines = _wrapped(prompt, font, width * 0.86)[:3]
    step = size * 1.3
    y = height * 0.94 - step * len(lines)
    for line in lines:
        x = (width - font.getlength(line)) / 2
        pen.text((x + 2, y + 2), line, font=font, fill=(0, 0, 0))
        pen.text((x, y), line, font=font, fill=(255, 252, 240))
        y += step


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float
) -> list[str]:
    lines: list[str] = []
    for word in text[:200].split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word[:40])
    return lines


def fitted_size(source: bytes) -> tuple[int, int] | None:
    """
    About one megapixel in the aspect ratio of the image file *source*; None if it is none.
    """
    try:
        with Image.open(BytesIO(source)) as picture:
            width, height = picture.size
    except (OSError, ValueError):
        return None
    scale = CANVAS / math.sqrt(width * height)
    return _to_grid(width * scale), _to_grid(height * scale)


def _to_grid(side: float) -> int:
    return max(GRID, round(side / GRID) * GRID)


def encode(picture: Image.Image, kind: str, *, quality: int | None = None) -> bytes:
    """
    *picture* as a ``jpeg``, ``png`` or ``webp`` file.

    Args:
        quality: 0 to 100. A PNG is stored uncompressed unless this is given.
    """
    file = BytesIO()
    if kind == "png":
        picture.save(file, "PNG", compress_level=0 if quality is None else 6)
    elif kind == "webp":
        picture.save(file, "WEBP", quality=75 if quality is None else quality, method=0)
    else:
        picture.save(file, "JPEG", quality=75 if quality is None else quality)
    return file.getvalue()


def picture_file(scene: Scene, kind: str, quality: int | None = None) -> bytes:
    """
    The file that a worker answers for *scene*.
    """
    return encode(draw(scene), kind, quality=quality)
