"""What the kernel must do: blur an image by its 3 x 3 neighbours, wrapped at the edges.

The weights are 1 2 1, 2 4 2, 1 2 1, all divided by 16. This file is frozen in a search.
"""

import numpy as np

SIZES = (1, 256)  # results are checked on all of these
TIMED = (96, 256)  # the speed-up is measured on these
TOLERANCE = (1e-5, 1e-6)  # relative and absolute: what float32 needs if the sum is taken in another order


def inputs(rng, size):
    """One image of about size * size pixels."""
    rows = max(1, round(size * rng.uniform(0.7, 1.4)))
    columns = max(1, round(size * size / rows))
    return [255 * rng.random((rows, columns), np.float32)]


def edges(rng):
    """Inputs that a wrong kernel might get wrong: single rows and columns, zeros, large and tiny numbers."""
    for shape in ((1, 1), (1, 7), (7, 1), (2, 2), (3, 33), (33, 3)):
        yield [rng.standard_normal(shape, np.float32)]
    yield [np.zeros((5, 17), np.float32)]
    yield [np.float32(1e30) * rng.random((16, 31), np.float32)]
    yield [np.float32(1e-30) * rng.random((31, 16), np.float32)]


def reference(image):
    """The blurred image."""
    across = np.roll(image, 1, 1) + 2 * image + np.roll(image, -1, 1)
    return (np.roll(across, 1, 0) + 2 * across + np.roll(across, -1, 0)) / np.float32(16)
