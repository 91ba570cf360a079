"""Everything global that a call could change for its caller, in a form that compares."""

from __future__ import annotations

import gc
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate.state
import matplotlib
import numpy as np
import onnxruntime
import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image, ImageFile
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

LIBRARIES = (diffusers_logging, transformers_logging)
BY_ACCELERATE = ("AcceleratorState", "PartialState", "GradientState")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _loggers() -> dict[str, Any]:
    """Levels, handlers and the like of the root and of every logger."""
    found = {}
    for name in ("", *list(logging.root.manager.loggerDict)):
        logger = logging.getLogger(name)
        found[name] = (logger.level, logger.disabled, logger.propagate, *map(str, logger.handlers))
    return found


STATE: dict[str, Callable[[], Any]] = {
    "torch's generator": lambda: torch.get_rng_state().tolist(),
    "numpy's generator": lambda: repr(np.random.get_state()),
    "python's generator": random.getstate,
    "grad mode": torch.is_grad_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": lambda: [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")],
    "anomaly detection": torch.is_anomaly_enabled,
    "default dtype": torch.get_default_dtype,
    "default device": lambda: str(torch.get_default_device()),
    "threads": lambda: (torch.get_num_threads(), torch.get_num_interop_threads()),
    "deterministic": torch.get_deterministic_debug_mode,
    "precision of products": torch.get_float32_matmul_precision,
    "cudnn": lambda: [
        getattr(torch.backends.cudnn, name)
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32")
    ],
    "attention kernels": lambda: [
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    ],
    "accelerate": lambda: {
        name: dict(getattr(accelerate.state, name)._shared_state) for name in BY_ACCELERATE
    },
    "onnxruntime": onnxruntime.get_available_providers,
    "numpy's errors": np.geterr,
    "numpy's printing": lambda: repr(np.get_printoptions()),
    "matplotlib": lambda: dict(matplotlib.rcParams),
    "pillow": lambda: (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES),
    "environment": lambda: dict(os.environ),
    "working directory": Path.cwd,
    "umask": _umask,
    "limits": lambda: [
        resource.getrlimit(limit)
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS, resource.RLIMIT_CORE)
    ],
    "locale": lambda: locale.setlocale(locale.LC_ALL),
    "temporary folder": lambda: tempfile.tempdir or tempfile.gettempdir(),
    "warnings": lambda: (list(warnings.filters), warnings.showwarning),
    "verbosity": lambda: [library.get_verbosity() for library in LIBRARIES],
    "progress bars": lambda: [library.is_progress_bar_enabled() for library in LIBRARIES],
    "loggers": _loggers,
    "no logging below": lambda: logging.root.manager.disable,
    "signals": lambda: {number: signal.getsignal(number) for number in signal.valid_signals()},
    "streams": lambda: (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
    "import path": lambda: list(sys.path),
    "depth of calls": sys.getrecursionlimit,
    "garbage collection": lambda: (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
    "start of processes": lambda: multiprocessing.get_start_method(allow_none=True),
}


def process_state() -> dict[str, Any]:
    """Reads all of STATE."""
    return {name: read() for name, read in STATE.items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What differs, without loggers that a library has made since, when it was first imported."""
    kept = {name: after["loggers"][name] for name in before["loggers"]}
    now = {**after, "loggers": kept}
    return {name: (before[name], now[name]) for name in before if before[name] != now[name]}


def use_libraries() -> None:
    """Settles what other libraries settle at their first use.

    torch's exporter drops a handler that waits for a place to write traces to. The first progress
    bar of tqdm asks Python for a lock between processes, and so for the way in which they are
    started; `torch.fx` makes one, invisible, when it first runs a graph.
    """
    torch.export.export(torch.nn.Identity(), (torch.ones(1),), strict=False)
    tqdm.get_lock()
