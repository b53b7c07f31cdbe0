"""The handwritten digits that ship with the package; see data/README.md for their source."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Digits(NamedTuple):
    """Images and what they show."""

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]


def load_digits() -> Digits:
    """1797 handwritten digits of 8x8 pixels, the test set of the UCI repository [1]_.

    Returns
    -------
    Digits
        ``images``, float32 of shape (1797, 8, 8), whole numbers from 0 (white) to 16 (black);
        ``labels``, uint8 of shape (1797,), from 0 to 9.

    References
    ----------
    .. [1] E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
       Learning Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0).

    Examples
    --------
    >>> images, labels = load_digits()
    >>> images.shape, int(labels[0])
    ((1797, 8, 8), 0)
    """
    with files("numbanorm").joinpath("data/digits.npz").open("rb") as file, np.load(file) as arrays:
        return Digits(arrays["images"].astype(np.float32), arrays["labels"])
