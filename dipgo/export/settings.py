"""The settings of an export: every choice and number, with its default and its help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from dipgo.common.errors import wrong
from dipgo.common.settings import check_settings, option
from dipgo.compiler.passes import OPTIMISE
from dipgo.compiler.settings import SCHEDULE, SIZE, Request
from dipgo.engines.targets import DEFAULT_TARGET, TARGETS, any_of
from dipgo.engines.tensorrt.build import DEFAULT_BUILD, ENGINES, BuildOptions
from dipgo.ir.manifest.records import SIZE_PATTERN
from dipgo.ir.types import PRECISIONS, PrecisionName

PRECISION, OUTPUT = "precision", "output"
"""Headings of a command's help."""

PASS_NAMES = tuple(each.name for each in OPTIMISE)

Size: TypeAlias = tuple[int, int] | tuple[int, int, int]
"""Height and width in pixels, optionally preceded by the number of pictures of a run."""


def size(text: str) -> tuple[int, ...]:
    """Reads an argument such as `512x768` or `4x512x768`: pictures, height, width."""
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError
    return tuple(map(int, text.split("x")))


size.__name__ = "a height and width in pixels such as 512x768, or with a batch 4x512x768"


def pass_names(text: str) -> tuple[str, ...]:
    """Reads an argument such as `number_values,allocate_slots`."""
    return tuple(name.strip() for name in text.split(","))


SIZES = "sizes above 0 such as (512, 768), height and width in pixels, or (4, 512, 768) of a batch"
"""The values of `also_sizes`, in words."""

PASSES: dict[str, Any] = {
    "help": f"passes to run, in order ({','.join(PASS_NAMES)})",
    "group": SCHEDULE,
    "metavar": "A,B,C",
    "type": pass_names,
}
"""The option that `export` and `inspect` share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings(Request):
    """The settings with which a model is compiled and written.

    The same graphs serve `also_sizes`, further (height, width) in pixels or (batch, height, width);
    calls are not batched then. `passes` are names, run in this order. Modules that `keep_fp32`
    matches stay in fp32 whatever the precision; `check_numerics` compares every segment with fp32
    on a trajectory. The targets `tensorrt` and `tensorrt-rtx` add engines, built as `build` says;
    the target `torch` adds PyTorch programs. The graphs of the target `openvino` have older
    operators in place of those that ONNX Runtime's OpenVINO provider lacks. The target `triton` is
    a Triton model repository around an export directory.
    """

    also_sizes: tuple[Size, ...] = option(
        (),
        help="further sizes",
        group=SIZE,
        flag="--also-size",
        nargs="+",
        metavar="[Nx]HxW",
        type=size,
        expected=SIZES,
    )
    target: str = option(DEFAULT_TARGET, help=lambda: any_of(TARGETS), group=ENGINES)
    precision: PrecisionName = option(
        "fp32", help=lambda: any_of(PRECISIONS), group=PRECISION, choices=None
    )
    keep_fp32: tuple[str, ...] = option(
        (), help="modules that stay in fp32", group=PRECISION, nargs="+", metavar="PATTERN"
    )
    check_numerics: bool = option(
        True,
        help="do not run fp16 against fp32 (it is run)",
        group=PRECISION,
        flag="--no-numerics-check",
        needs={"precision": tuple(name for name in PRECISIONS if name != "fp32")},
    )
    passes: tuple[str, ...] = option(PASS_NAMES, **PASSES)
    build: BuildOptions = DEFAULT_BUILD
    force: bool = option(
        False,
        help="replace an export that stands there (off)",
        group=OUTPUT,
        flag="--force",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        for numbers in self.also_sizes:
            if not re.fullmatch(SIZE_PATTERN, "x".join(map(str, numbers))):
                raise wrong("also_sizes", numbers, SIZES)
