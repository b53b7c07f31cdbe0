"""What is measured: operations on shapes, by profile.

Shapes: one token, batches that fit in cache and batches that do not; few and many
features, an odd number of them; the first and last stages of a residual network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from numbanorm._bench.cases import GRADIENTS, NORMS, OPERATIONS, STATISTICS, Operation, Shape

#: Norms that torch has as one call.
FUNCTIONAL = tuple(operation for operation in NORMS if operation.name != "standardize")
MEAN_VAR = tuple(operation for operation in STATISTICS if operation.name.startswith("mean_var"))
VAR = tuple(operation for operation in STATISTICS if operation.name.startswith("var"))


class Cell(NamedTuple):
    """An operation on a shape; images are given as (N, C, H, W) in any memory format."""

    operation: str
    shape: Shape
    dtype: str = "float32"

    def __str__(self) -> str:
        words = [self.operation, str(self.shape)]
        return " ".join(words if self.dtype == "float32" else [*words, self.dtype])

    @property
    def nbytes(self) -> int:
        """Bytes of x."""
        return prod(self.shape) * (4 if self.dtype == "float32" else 2)

    @property
    def moved(self) -> int:
        """Bytes that must pass between memory and processor: x once, and a result as large, and dy."""
        operation = OPERATIONS[self.operation]
        return self.nbytes * (1 + operation.is_norm + operation.is_gradient)


@dataclass(frozen=True)
class Profile:
    """Shapes by layout, and which of them count as small or large."""

    rows: tuple[Shape, ...]
    columns: tuple[Shape, ...]
    images: tuple[Shape, ...]
    #: Shapes on which libraries are compared in addition.
    more_rows: tuple[Shape, ...] = ()
    more_images: tuple[Shape, ...] = ()
    #: Rows that stay in cache between a call and the next.
    cached: tuple[Shape, ...] = ()
    #: Bytes of x up to which the cost of a call is not its arithmetic, from which threads
    #: should help, and from which memory alone should count.
    small: int = 1 << 14
    middling: int = 16_000_000
    large: int = 64_000_000
    #: Beyond this the reference of a gradient takes more memory than benchmarks should.
    largest: int = 150_000_000

    def shapes(self, layout: str) -> tuple[Shape, ...]:
        """Shapes of a layout. A single row has no statistics over the first axis."""
        return {"rows": self.rows, "columns": self.columns}.get(layout, self.images)

    def _cells(self, operations: Iterable[Operation], dtype: str = "float32") -> list[Cell]:
        """All of these operations on all shapes, a shape at a time."""
        more_columns = tuple(shape for shape in self.more_rows if shape[0] > 1)
        more = {"rows": self.more_rows, "columns": more_columns}
        cells = [
            Cell(operation.name, shape, dtype)
            for operation in operations
            for shape in self.shapes(operation.layout) + more.get(operation.layout, self.more_images)
        ]
        shapes = list(dict.fromkeys(cell.shape for cell in cells))
        return sorted(cells, key=lambda cell: shapes.index(cell.shape))

    def peers(self) -> dict[str, list[Cell]]:
        """Cells on which libraries are compared, by the groups that have a mean."""
        whole = [op for op in (*MEAN_VAR, *VAR, *FUNCTIONAL) if op.layout != "columns"]
        return {
            "norms": self._cells(FUNCTIONAL),
            "gradients": self.gradients(),
            "standardize": [Cell("standardize", shape) for shape in self.columns],
            "mean_var": self._cells(MEAN_VAR),
            "var": self._cells(VAR),
            # NumPy sums float16 in float16 over other axes, and is wrong there.
            "var of float16": self._cells([OPERATIONS["var_last_axis"]], "float16"),
            "small calls": [cell for cell in self._cells(whole) if cell.nbytes <= self.small],
        }

    def copies(self) -> list[Cell]:
        """Norms to be held against a copy."""
        cached = [Cell("layer_norm", shape) for shape in self.cached]
        large = [cell for cell in self._cells(FUNCTIONAL) if cell.nbytes >= self.large]
        return list(dict.fromkeys([*cached, *large]))

    def gradients(self) -> list[Cell]:
        """Gradients on all shapes but the largest."""
        return [
            cell
            for cell in self._cells(GRADIENTS)
            if cell.nbytes <= self.largest and cell.shape in self.shapes(OPERATIONS[cell.operation].layout)
        ]

    def large_gradients(self) -> list[Cell]:
        """Gradients to be held against a copy."""
        of_rows = ("layer_norm_backward", "rms_norm_backward")
        return [cell for cell in self.gradients() if cell.operation in of_rows and cell.nbytes >= self.large]

    def reads(self) -> list[Cell]:
        """Statistics to be held against a read."""
        return [cell for cell in self._cells(MEAN_VAR) if cell.nbytes >= self.large]

    def threaded(self) -> list[Cell]:
        """Cells on which two threads are held against one."""
        cells = self._cells((*FUNCTIONAL, *MEAN_VAR))
        return [cell for cell in cells if cell.nbytes >= self.middling]

    def halves(self) -> list[Cell]:
        """Cells in float32 to be held against 16 bits: for each operation the first that is large enough then."""
        cells = self._cells((*FUNCTIONAL, *MEAN_VAR))
        large = [cell for cell in reversed(cells) if cell.nbytes // 2 >= self.middling]
        return list({cell.operation: cell for cell in large}.values())[::-1]

    def formats(self) -> list[Cell]:
        """Batch norms of channels-first images, to be held against channels-last ones."""
        return self._cells(operation for operation in FUNCTIONAL if f"{operation.name}_nhwc" in OPERATIONS)


_ROWS = ((1, 768), (512, 768), (16384, 1024), (4096, 8192))
_TALL = ((1_000_000, 16),)
_IMAGES = ((8, 64, 56, 56), (32, 512, 7, 7), (64, 256, 56, 56))
#: Half the last one, for users have less time and memory.
_USER_IMAGES = (*_IMAGES[:2], (32, 256, 56, 56))
_MORE_ROWS = ((32, 768), (65536, 64), (100_000, 257))
_MORE_IMAGES = ((2, 16, 8, 8), (32, 256, 28, 28))
_CACHED = ((512, 768),)

PROFILES = {
    "smoke": Profile(((8, 64),), ((64, 8),), ((2, 16, 8, 8),), cached=((8, 64),), middling=0, large=0),
    "quick": Profile(
        ((1, 768), (512, 768), (8192, 1024)),
        ((8192, 1024),),
        ((2, 16, 8, 8), (32, 256, 28, 28)),
        cached=_CACHED,
        large=25_000_000,
    ),
    "user": Profile(_ROWS, _ROWS[1:] + _TALL, _USER_IMAGES, _MORE_ROWS, _MORE_IMAGES, _CACHED),
    "regular": Profile(_ROWS, _ROWS[1:] + _TALL, _IMAGES, _MORE_ROWS, _MORE_IMAGES, _CACHED),
    "large": Profile(
        (*_ROWS, (65536, 4096)),
        (*_ROWS[1:], *_TALL, (65536, 4096)),
        (*_IMAGES, (128, 256, 56, 56)),
        _MORE_ROWS,
        _MORE_IMAGES,
        _CACHED,
    ),
}
