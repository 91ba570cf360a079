"""Between numpy's element types and the plan's."""

from __future__ import annotations

from typing import Any

import numpy as np

_DTYPES: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The element type; numpy has none for `bf16`, which never leaves an engine. Or KeyError."""
    return _DTYPES[dtype]
