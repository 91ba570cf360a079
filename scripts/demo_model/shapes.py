"""Draws the pictures of the demo data set, names them, and splits the captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PICTURE_SIZE = 64
_SUPERSAMPLING = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (250, 135, 15),
    "yellow": (248, 222, 25),
    "green": (35, 155, 50),
    "cyan": (20, 195, 215),
    "blue": (30, 60, 215),
    "purple": (135, 40, 165),
    "black": (18, 18, 20),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
RADII = {"small": 9.0, "large": 16.0}
PLACES: dict[str, tuple[float, float]] = {
    "at the top left": (20.0, 20.0),
    "at the top right": (44.0, 20.0),
    "at the bottom left": (20.0, 44.0),
    "at the bottom right": (44.0, 44.0),
    "in the center": (32.0, 32.0),
}
HEADS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(RADII),
    "place": tuple(PLACES),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What one picture shows: one value for each of the four attributes in `HEADS`."""

    colour: str
    shape: str
    size: str
    place: str

    @property
    def caption(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} {self.place}"

    @property
    def labels(self) -> tuple[int, int, int, int]:
        """The class index in each head, in the order of `HEADS`."""
        colour, shape, size, place = (
            values.index(getattr(self, head)) for head, values in HEADS.items()
        )
        return colour, shape, size, place


def all_scenes() -> tuple[Scene, ...]:
    """Every combination of the four attributes, in a fixed order."""
    return tuple(Scene(*values) for values in product(*HEADS.values()))


def split_scenes(
    held_out_share: float = 0.1, seed: int = 0
) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    """Split all scenes into (training, held out); no caption is in both."""
    scenes = all_scenes()
    order = np.random.default_rng(seed).permutation(len(scenes))
    n_held_out = round(held_out_share * len(scenes))
    held_out = tuple(scenes[i] for i in order[:n_held_out])
    training = tuple(scenes[i] for i in sorted(order[n_held_out:]))
    return training, held_out


def draw(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one anti-aliased picture u8[64, 64, 3], with small changes of place, size and shade."""
    colour = np.clip(np.array(COLOURS[scene.colour]) + rng.integers(-10, 11, 3), 0, 255)
    shade = int(rng.integers(222, 246))
    radius = RADII[scene.size] * rng.uniform(0.94, 1.06)
    x, y = np.array(PLACES[scene.place]) + rng.uniform(-2.0, 2.0, 2)
    fill = (int(colour[0]), int(colour[1]), int(colour[2]))

    big = PICTURE_SIZE * _SUPERSAMPLING
    image = Image.new("RGB", (big, big), (shade, shade, shade))
    scaled = (x * _SUPERSAMPLING, y * _SUPERSAMPLING, radius * _SUPERSAMPLING)
    _draw_shape(ImageDraw.Draw(image), scene.shape, *scaled, fill)
    return np.asarray(image.reduce(_SUPERSAMPLING))


def draw_batch(scenes: Sequence[Scene], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one picture a scene: u8[N, 64, 64, 3]."""
    return np.stack([draw(scene, rng) for scene in scenes])


def _draw_shape(
    pen: ImageDraw.ImageDraw,
    shape: str,
    x: float,
    y: float,
    r: float,
    fill: tuple[int, int, int],
) -> None:
    match shape:
        case "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        case "ring":
            middle = 0.8 * r
            box = (x - r, y - r, x + r, y + r)
            pen.ellipse(box, outline=fill, width=round(2 * (r - middle)))
        case "square":
            side = 0.86 * r
            pen.rectangle((x - side, y - side, x + side, y + side), fill=fill)
        case "cross":
            arm = 0.3 * r
            pen.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
            pen.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        case "triangle":
            half, top, bottom = 1.0 * r, y - 0.95 * r, y + 0.8 * r
            pen.polygon([(x, top), (x + half, bottom), (x - half, bottom)], fill=fill)
        case "star":
            pen.polygon(_star(x, y, 1.1 * r), fill=fill)
        case _:
            raise ValueError(f"shape is {shape!r}, expected one of {SHAPES}")


def _star(x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The ten corners of an upright five-pointed star."""
    corners = []
    for i in range(10):
        reach = r if i % 2 == 0 else 0.42 * r
        angle = math.pi * i / 5
        corners.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return corners
