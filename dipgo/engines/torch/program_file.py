"""Defines the file of a program for PyTorch: a list of operators, as data.

A program that `torch.export` saves may hold pickles and source text, which run when it is loaded,
and an export is a file from a stranger. This one holds names of operators of an allowed kind, and
numbers.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import torch
from msgspec import Meta
from torch import fx

FORMAT: Literal["dipgo.torch-program"] = "dipgo.torch-program"

VERSION: Literal[1] = 1

MOST_NODES = 200_000
"""Nodes of a program: some ten times those of the largest denoisers in one segment."""

MOST_INPUTS = 100_000
"""Inputs, and weights, of a program."""

MOST_NUMBER = 2**31
"""Whole numbers of a program are smaller: products of a few of them fit 64 bits."""

SLICE, END = "aten.slice.Tensor", 2**63 - 1
"""The operator that slices, and the end of a slice that has none, as PyTorch writes it."""

ITEM = "item"
"""The operator that takes one of several results."""

SIZE_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "truediv": operator.truediv,
    "mod": operator.mod,
    "neg": operator.neg,
    "int": int,
    "float": float,
    "min": min,
    "max": max,
}
"""Arithmetic on sizes that differ between calls, by name."""


def _bounded(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Returns an operator on sizes that takes numbers alone, and gives none that is too large."""

    def on_sizes(*sizes: Any) -> Any:
        if not all(isinstance(size, _NUMBERS) for size in sizes):
            raise ValueError(f"{name} of what is no number")
        result = compute(*sizes)
        if not -MOST_NUMBER < result < MOST_NUMBER:
            raise ValueError(f"{name} of sizes gives {MOST_NUMBER} or more")
        return result

    on_sizes.__name__ = on_sizes.__qualname__ = f"{name}_of_sizes"
    return on_sizes


_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)

_BOUNDED = {name: _bounded(name, compute) for name, compute in SIZE_OPERATORS.items()}

WORDS = frozenset(
    {"none", "tanh", "floor", "trunc", "constant", "reflect", "replicate", "circular"}
)
"""Texts that operators take: kinds of rounding, padding and activation. Never a path."""

_EQUATION = re.compile(r"[A-Za-z,.]+->[A-Za-z.]*", re.ASCII)

SEEDED = frozenset({"scaled_dot_product_attention"})
"""Operators that draw random numbers only if they are told to drop out some of theirs."""

_ELEMENTWISE = """
abs neg exp expm1 log log1p log2 sqrt rsqrt reciprocal square sin cos tan asin acos atan atan2
sinh cosh tanh erf sigmoid logit sign floor ceil round trunc frac nan_to_num isnan isinf isfinite
add sub rsub mul div true_divide floor_divide remainder fmod pow maximum minimum hypot lerp
addcmul addcdiv clamp clamp_min clamp_max where masked_fill eq ne lt le gt ge logical_not
logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or bitwise_xor relu relu6
leaky_relu prelu elu selu celu gelu silu mish softplus hardtanh hardswish hardsigmoid
log_sigmoid glu
"""

_REDUCTIONS = """
sum mean prod amax amin max min argmax argmin any all var std var_mean std_mean norm
linalg_vector_norm logsumexp cumsum cumprod softmax _softmax log_softmax _log_softmax
"""

_SHAPES = """
view reshape _unsafe_view view_as flatten unflatten squeeze unsqueeze permute transpose t expand
expand_as repeat contiguous clone to _to_copy type_as cat concat stack chunk split
split_with_sizes unbind select slice narrow flip roll constant_pad_nd pad pixel_shuffle
pixel_unshuffle unfold im2col tril triu diagonal diag_embed index index_select gather sym_size
sym_numel real imag complex polar view_as_real view_as_complex reshape_as swapaxes movedim
tensor_split channel_shuffle broadcast_to take_along_dim meshgrid tile
"""

_NEW = """
zeros ones full arange linspace eye scalar_tensor zeros_like ones_like full_like new_zeros
new_ones new_full
"""

_LAYERS = """
linear matmul mm bmm addmm baddbmm einsum dot outer bilinear conv1d conv2d conv3d convolution
conv_transpose1d conv_transpose2d conv_transpose3d layer_norm native_layer_norm group_norm
rms_norm batch_norm instance_norm scaled_dot_product_attention embedding
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
upsample_trilinear3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
max_pool1d max_pool2d fft_fft fft_ifft fft_fft2 fft_ifft2 fft_fftn fft_ifftn fft_rfft fft_irfft
fft_rfft2 fft_irfft2 fft_rfftn fft_irfftn fft_fftshift fft_ifftshift
"""

OPERATORS = frozenset(" ".join((_ELEMENTWISE, _REDUCTIONS, _SHAPES, _NEW, _LAYERS)).split())
"""All operators that a program may call: what denoisers, encoders and decoders compute with.

PyTorch has some two thousand, and many trust their arguments: those of gradients, of sparse and
quantised tensors, and of single libraries read and write memory at places that a tensor names;
`native_group_norm` believes the sizes that it is given.
"""

PRIVATE = frozenset(
    {"_to_copy", "_unsafe_view", "_softmax", "_log_softmax", "_upsample_nearest_exact2d"}
)
"""Operators that PyTorch calls private, and that check their arguments like public ones."""

_NAME = re.compile(r"aten\.([a-z_][a-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)


class Result(msgspec.Struct, frozen=True, tag="result", tag_field="is", forbid_unknown_fields=True):
    """A value: input, weight, or result of a node, counted in this order."""

    index: Annotated[int, Meta(ge=0)]


class Constant(
    msgspec.Struct, frozen=True, tag="constant", tag_field="is", forbid_unknown_fields=True
):
    """A constant of PyTorch: `dtype` float16, `memory_format` channels_last, `layout` strided.

    The `device` is the one that the program is loaded for, whatever its name; a `float` is an
    infinity or NaN, which JSON lacks.
    """

    kind: Literal["dtype", "memory_format", "layout", "device", "float"]
    name: str


class Items(msgspec.Struct, frozen=True, tag="items", tag_field="is", forbid_unknown_fields=True):
    """A list of arguments."""

    items: list[Argument]


Argument: TypeAlias = Result | Constant | Items | bool | int | float | str | None


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of an operator: `aten.add.Tensor`, a name of SIZE_OPERATORS, or ITEM."""

    operator: str
    arguments: list[Argument]
    options: dict[str, Argument] = {}


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file. `inputs` and `weights` are how many of each the program takes, in this order."""

    format: Literal["dipgo.torch-program"]
    version: Literal[1]
    inputs: Annotated[int, Meta(ge=0, le=MOST_INPUTS)]
    weights: Annotated[int, Meta(ge=0, le=MOST_INPUTS)]
    nodes: Annotated[list[Node], Meta(max_length=MOST_NODES)]
    outputs: list[Result]


def find_operator(name: str) -> Callable[..., Any] | None:
    """Returns the operator of this name, or None if there is none that a program may call.

    Allowed are those of OPERATORS in all their forms that write into no argument.
    """
    if name == ITEM:
        return operator.getitem
    if name in SIZE_OPERATORS:
        return _BOUNDED[name]
    match = _NAME.fullmatch(name)
    if match is None or match[1] not in OPERATORS:
        return None
    found = getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
    if found is None or str(found) != name:
        return None
    # Impure are operators that write into an argument, and those that draw random numbers.
    impure = match[1] not in SEEDED and fx.Graph().call_function(found).is_impure()
    return None if impure else found


def is_word(text: str) -> bool:
    """Returns whether an operator may be given this text: a word of WORDS, or einsum's equation."""
    return text in WORDS or _EQUATION.fullmatch(text) is not None
