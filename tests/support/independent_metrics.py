"""SSIM and PSNR by their definitions, independent of the package's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def independent_ssim(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Wang et al. 2004, equation 13, of pictures in [0, 1], mirrored at their edges."""

    def blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(values, (1.5, 1.5, 0), mode="mirror", radius=5))

    x, y = found / 255, expected / 255
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def independent_psnr(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    return float(-10 * np.log10(((found / 255 - expected / 255) ** 2).mean()))
