"""The initial noise that `torch.randn` draws on the CPU, made with numpy alone."""

import math

import numpy as np
from numpy.typing import NDArray

from dipgo.errors import DipgoError

BLOCK = 16  # torch fills normals in blocks of this many; below it, one pair at a time
MAX_SEED = 2**64 - 1  # what torch.Generator.manual_seed takes


def initial_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal f32[shape], as torch draws it from a CPU generator seeded with `seed`.

    Equal to `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))` but for
    the rounding of log, cos and sin: within 1e-6. Source: the algorithm of PyTorch's CPU
    generator (mt19937, Box-Muller), confirmed by experiment in tests/test_noise.py.

    Raises DipgoError for a seed outside 0..2**64-1 and for a negative size.
    """
    if not 0 <= seed <= MAX_SEED:
        raise DipgoError(
            "seed",
            found=str(seed),
            expected=f"a whole number from 0 to {MAX_SEED}",
            remedy="choose a seed in that range",
        )
    if any(size < 0 for size in shape):
        raise DipgoError(
            "noise shape",
            found=str(shape),
            expected="no negative size",
            remedy="give the shape of the latents",
        )
    count = math.prod(shape)
    # torch seeds its mt19937 with the low 32 bits, and so does numpy's RandomState.
    state = np.random.RandomState(seed & 0xFFFFFFFF)
    flat = _long(state, count) if count >= BLOCK else _short(state, count)
    return flat.astype(np.float32).reshape(shape)


def _draws(state: np.random.RandomState, count: int) -> NDArray[np.uint32]:
    """The generator's next raw 32-bit outputs, u32[count]."""
    return state.randint(0, 2**32, size=count, dtype=np.uint32)


def _long(state: np.random.RandomState, count: int) -> NDArray[np.float64]:
    """f64[count] for count ≥ 16: whole blocks, the last one drawn afresh where it overlaps."""
    out = np.empty(count)
    whole = count - count % BLOCK
    out[:whole] = _blocks(_draws(state, count)[:whole])
    if whole < count:
        out[-BLOCK:] = _blocks(_draws(state, BLOCK))
    return out


def _blocks(draws: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Box-Muller within each block: element i < 8 is paired with element i + 8.

    The angle is rounded to float32 as in torch, for its error grows with the radius.
    """
    uniform = (draws & 0xFFFFFF).reshape(-1, 2, BLOCK // 2) * 2.0**-24
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 0]))
    angle = (np.float32(2.0 * np.pi) * uniform[:, 1].astype(np.float32)).astype(np.float64)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _short(state: np.random.RandomState, count: int) -> NDArray[np.float64]:
    """f64[count] for count < 16: 53-bit uniforms, two draws each; each pair gives two normals."""
    pairs = (count + 1) // 2
    high, low = _draws(state, 4 * pairs).astype(np.uint64).reshape(-1, 2).T
    bits = (high << np.uint64(32) | low) & np.uint64(2**53 - 1)
    uniform = bits.astype(np.float64).reshape(pairs, 2) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniform[:, 1]))
    angle = 2.0 * np.pi * uniform[:, 0]
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return normals.reshape(-1)[:count]
