"""Draws the noise that `torch.randn` draws on the CPU, with numpy alone."""

import math
import sys
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dipgo.common.errors import DipgoError, wrong

BLOCK = 16  # torch fills normals in blocks of this size; shorter draws go pair by pair

MAX_SEED = 2**64 - 1  # the largest that torch.Generator.manual_seed takes


class NoiseStream:
    """The normal numbers that torch's CPU generator draws when seeded with `seed`.

    Equal to `torch.randn(shape, generator=generator)`, called as often with the same shapes, except
    for the rounding of log, cos and sin: within 1e-6.

    Args:
        seed: What `manual_seed` is called with.

    Raises:
        DipgoError: The seed is outside 0..2**64-1.

    Source:
        The algorithm of PyTorch's CPU generator (mt19937, Box-Muller), confirmed by experiment in
        tests/run/test_torch_noise.py.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= MAX_SEED:
            expected = f"a whole number from 0 to {MAX_SEED}"
            raise wrong("seed", seed, expected, "choose a seed in that range")
        # torch seeds its mt19937 with the low 32 bits, and so does numpy's RandomState.
        self._state = np.random.RandomState(seed & 0xFFFFFFFF)
        self._spare: list[float] = []  # the unused half of the pair that ended the last short draw

    def draw(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the next f32[shape].

        Raises:
            DipgoError: A size is negative.
        """
        if any(size < 0 for size in shape):
            raise DipgoError(
                "noise shape",
                found=str(shape),
                expected="no negative size",
                remedy="give the shape of the latents",
            )
        count = math.prod(shape)
        flat = _long(self._state, count) if count >= BLOCK else self._short(count)
        return flat.astype(np.float32).reshape(shape)

    def _short(self, count: int) -> NDArray[np.float64]:
        """Returns f64[count] for count < 16: the last short draw's spare number, then new pairs."""
        numbers = self._spare + _pairs(self._state, (max(count - len(self._spare), 0) + 1) // 2)
        self._spare = numbers[count:]
        return np.array(numbers[:count])


class Stream(Protocol):
    """Normal numbers, draw by draw."""

    def draw(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the next f32[shape]."""


class GeneratorStream:
    """The normal numbers that a `torch.Generator` of the CPU draws next: torch draws them itself.

    The generator moves on, as it does in diffusers: what it has drawn before counts.

    Args:
        generator: The generator, of which `is_generator` holds.
    """

    def __init__(self, generator: Any) -> None:
        self._generator, self._torch = generator, sys.modules["torch"]

    def draw(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the next f32[shape]."""
        drawn = self._torch.randn(shape, generator=self._generator, dtype=self._torch.float32)
        return np.asarray(drawn.numpy(), np.float32)


def is_generator(value: Any) -> bool:
    """Returns whether it is a `torch.Generator`, without importing torch: who has one has done."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Generator)


def stream_of(seed: Any) -> Stream:
    """Returns the stream of a seed, or of a `torch.Generator`.

    Raises:
        DipgoError: As `NoiseStream` does.
    """
    return GeneratorStream(seed) if is_generator(seed) else NoiseStream(seed)


def initial_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns the first draw of a seed, f32[shape].

    Raises:
        DipgoError: As `NoiseStream` does.
    """
    return NoiseStream(seed).draw(shape)


class PictureNoise:
    """The noise of a batch of pictures: from one seed, or from a seed for each picture.

    The draws are those of diffusers for a generator, or for a list of generators.

    Args:
        seed: The seed or the `torch.Generator` of all pictures, or of each. One generator that is
            named several times draws for each in turn.

    Raises:
        DipgoError: As `NoiseStream` does.
    """

    def __init__(self, seed: Any) -> None:
        self.one_a_picture = isinstance(seed, Sequence)
        self._streams = list(map(stream_of, seed if isinstance(seed, Sequence) else [seed]))

    def draw(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the next f32[shape], whose first axis counts pictures.

        Of several seeds, each of the first `shape[0]` draws its picture.
        """
        if not self.one_a_picture:
            return self._streams[0].draw(shape)
        assert shape[0] <= len(self._streams), "a seed for each picture"
        streams = self._streams[: shape[0]]
        return np.concatenate([stream.draw((1, *shape[1:])) for stream in streams])

    def draw_those(
        self, shape: tuple[int, ...], indices: Collection[int], least: int = 0
    ) -> dict[int, NDArray[np.float32]]:
        """Makes as many draws as needed and returns those in `indices`, f32[shape] each.

        Index 0 is the next draw; at least `least` are made.
        """
        draws = {}
        for index in range(max(least, max(indices, default=-1) + 1)):
            drawn = self.draw(shape)
            if index in indices:
                draws[index] = drawn
        return draws


def draw_noise(
    seed: int | Sequence[int], shape: tuple[int, ...], indices: Collection[int]
) -> dict[int, NDArray[np.float32]]:
    """Returns the draws of a seed that `indices` name, f32[shape] each; index 0 is the first.

    Of several seeds, each draws its picture.

    Raises:
        DipgoError: As `NoiseStream` does.
    """
    return PictureNoise(seed).draw_those(shape, indices)


def _draws(state: np.random.RandomState, count: int) -> NDArray[np.uint32]:
    """Returns the generator's next raw 32-bit outputs, u32[count]."""
    return state.randint(0, 2**32, size=count, dtype=np.uint32)


def _long(state: np.random.RandomState, count: int) -> NDArray[np.float64]:
    """Returns f64[count] for count ≥ 16, in whole blocks.

    Where the last block overlaps the one before, it is drawn again.
    """
    out = np.empty(count)
    whole = count - count % BLOCK
    out[:whole] = _blocks(_draws(state, count)[:whole])
    if whole < count:
        out[-BLOCK:] = _blocks(_draws(state, BLOCK))
    return out


def _blocks(draws: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Applies Box-Muller within each block: element i < 8 is paired with element i + 8.

    The angle is rounded to float32 as in torch: the error that this makes grows with the radius.
    """
    uniform = (draws & 0xFFFFFF).reshape(-1, 2, BLOCK // 2) * 2.0**-24
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 0]))
    angle = (np.float32(2.0 * np.pi) * uniform[:, 1].astype(np.float32)).astype(np.float64)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _pairs(state: np.random.RandomState, count: int) -> list[float]:
    """Returns 2 * count normals: each pair comes of two 53-bit uniforms of two draws each."""
    high, low = _draws(state, 4 * count).astype(np.uint64).reshape(-1, 2).T
    bits = (high << np.uint64(32) | low) & np.uint64(2**53 - 1)
    uniform = bits.astype(np.float64).reshape(count, 2) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 1]))
    angle = 2.0 * np.pi * uniform[:, 0]
    normals: list[float] = (
        np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel().tolist()
    )
    return normals
