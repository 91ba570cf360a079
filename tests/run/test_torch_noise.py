"""`dipgo.common.torch_noise` against the generator it stands in for."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from dipgo.common.errors import DipgoError
from dipgo.common.torch_noise import NoiseStream, PictureNoise, draw_noise, initial_noise
from dipgo.run.arguments import DRAWN_SEEDS, reported, seeds_of

TOLERANCE = 1e-5
SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 42, 123456789012345678, 2**64 - 1]


def assert_like_torch(seed: int, shape: tuple[int, ...]) -> None:
    generator = torch.Generator("cpu").manual_seed(seed)
    wanted = torch.randn(shape, generator=generator, dtype=torch.float32).numpy()
    noise = initial_noise(seed, shape)
    assert noise.dtype == np.float32
    assert noise.shape == wanted.shape
    np.testing.assert_allclose(noise, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (2, 4, 3, 5), (7,), (16,), (31,)])
def test_seeds(seed: int, shape: tuple[int, ...]) -> None:
    assert_like_torch(seed, shape)


@pytest.mark.parametrize("size", range(41))
def test_sizes(size: int) -> None:
    assert_like_torch(3, (size,))


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 0), (1, 16, 128, 128), (2, 3, 5, 7, 11)])
def test_shapes(shape: tuple[int, ...]) -> None:
    assert_like_torch(11, shape)


def test_it_is_the_same_every_time_and_leaves_numpy_alone() -> None:
    np.random.seed(5)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    assert np.array_equal(initial_noise(9, (40,)), initial_noise(9, (40,)))
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(DipgoError, match=rf"seed: found {seed}; expected .* from 0"):
        initial_noise(seed, (4,))


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(DipgoError, match="no negative size"):
        initial_noise(0, (4, -1))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 50), min_size=1, max_size=12))
def test_draw_after_draw(seed: int, sizes: list[int]) -> None:
    """Of a short draw of odd size a number is left over, which the next short draw begins with."""
    generator, stream = torch.Generator("cpu").manual_seed(seed), NoiseStream(seed)
    for size in sizes:
        wanted = torch.randn((size,), generator=generator, dtype=torch.float32).numpy()
        np.testing.assert_allclose(stream.draw((size,)), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(2, 4, 6, 6), (3, 1, 3, 1), (1, 4, 2, 2), (3, 1, 5, 5)])
@pytest.mark.parametrize("seed", [5, [5, 2**33, 9]])
def test_draws_are_those_of_diffusers(shape: tuple[int, ...], seed: int | list[int]) -> None:
    """A generator draws for all pictures at once, each of a list of generators for its own."""
    seeds = seed if isinstance(seed, int) else seed[: shape[0]]
    if isinstance(seeds, int):
        generator = torch.Generator("cpu").manual_seed(seeds)
    else:
        generator = [torch.Generator("cpu").manual_seed(one) for one in seeds]
    wanted = [randn_tensor(shape, generator=generator, dtype=torch.float32) for _ in range(5)]
    found = draw_noise(seeds, shape, (0, 2, 4))
    assert list(found) == [0, 2, 4]
    for index, noise in found.items():
        assert noise.dtype == np.float32
        np.testing.assert_allclose(noise, wanted[index].numpy(), rtol=0, atol=TOLERANCE)


def _made(seeds: list[int], names: str) -> list[torch.Generator]:
    """A generator for each letter of `names`, the same for the same letter; all have been used."""
    by_name = {
        name: torch.Generator().manual_seed(seed) for name, seed in zip("abc", seeds, strict=True)
    }
    for index, generator in enumerate(by_name.values()):
        torch.randn(index * 5, generator=generator)
    return [by_name[name] for name in names]


@pytest.mark.parametrize("names", ["a", "abc", "aaa", "aba", "b", "cc"])
def test_generators_draw_as_in_diffusers(names: str) -> None:
    """Such that have been drawn from, or are one; what they draw later, too.

    Failed at 4482adb: all were read as fresh ones.
    """
    ours, theirs = (_made([1, 2, 2**40], names) for _ in range(2))
    noise = PictureNoise(ours if len(names) > 1 else ours[0])
    shape = (len(names), 4, 3, 3)
    for _ in range(3):
        wanted = randn_tensor(shape, generator=theirs, dtype=torch.float32).numpy()
        assert np.array_equal(noise.draw(shape), wanted)
    assert all(
        torch.equal(own.get_state(), other.get_state())
        for own, other in zip(ours, theirs, strict=True)
    )


def test_seeds_and_generators_may_stand_in_one_list() -> None:
    mixed = PictureNoise([5, torch.Generator().manual_seed(5)]).draw((2, 4, 8, 8))
    np.testing.assert_allclose(mixed[0], mixed[1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "value", [np.random.default_rng(3), "5", 1.5, SimpleNamespace(initial_seed=1)]
)
def test_what_is_no_generator_is_refused(value: object) -> None:
    with pytest.raises(DipgoError, match=r"^generator: found .* expected a whole number"):
        seeds_of(value, None)
    with pytest.raises(DipgoError, match=r"^seed: found .* expected a whole number"):
        seeds_of(None, [3, value])


def test_a_seed_is_drawn_where_there_is_none() -> None:
    """Another each time, whatever the state of the generators that programs seed."""
    drawn = []
    for _ in range(20):
        np.random.seed(5)
        torch.manual_seed(5)
        random.seed(5)
        drawn.append(seeds_of(None, None))
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < DRAWN_SEEDS for seed in drawn)
    state = torch.random.get_rng_state()
    assert torch.equal(state, torch.manual_seed(5).get_state())


def test_seeds_are_reported_and_generators_are_not() -> None:
    generator = torch.Generator().manual_seed(3)
    assert reported(seeds_of(None, np.int64(7))) == 7
    assert reported(seeds_of(None, [7, 8])) == [7, 8]
    assert reported(seeds_of(generator, None)) is None
    assert reported(seeds_of([generator, 4], None)) == [None, 4]


def test_no_draws() -> None:
    assert draw_noise(3, (1, 4, 8, 8), ()) == {}
