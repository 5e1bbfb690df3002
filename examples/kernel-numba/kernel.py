"""Blurs an image: spec.py says what is right."""

import numba
import numpy as np


@numba.njit(fastmath=False)
def kernel(image):
    """The image, each pixel the weighted mean of its 3 x 3 neighbours, wrapped at the edges."""
    rows, columns = image.shape
    out = np.empty_like(image)
    for y in range(rows):
        for x in range(columns):
            total = np.float32(0)
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    weight = np.float32((2 - abs(dy)) * (2 - abs(dx)))
                    total += weight * image[(y + dy) % rows, (x + dx) % columns]
            out[y, x] = total / np.float32(16)
    return out
