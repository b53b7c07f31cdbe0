"""Which elements of x a norm looks at: a mask, or the lengths of padded samples.

Whatever is left out takes no part in statistics and gradients. A mask is a boolean array;
lengths stay what they are until a launcher needs them as a mask, because kernels that know
them do not even read the padding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm import _arrays
from numbanorm._arguments import as_array, as_mask
from numbanorm._axes import canonicalize_axis
from numbanorm._errors import ShapeError, check_choice
from numbanorm._guests import as_host

Array = NDArray[Any]
Axes = tuple[int, ...]

PADDINGS = ("zero", "keep")


class Lengths(NamedTuple):
    """How many of the first elements of each sample take part, along one axis of x."""

    #: int64 (n_samples,), on the host.
    values: Array
    sample_axis: int
    length_axis: int

    @classmethod
    def of(cls, shape: Axes, lengths: Any, length_axis: int | None, channel_axis: int | None = None) -> Lengths:
        """Checked; `length_axis` None is the first axis that is neither the samples' nor the channels'."""
        sample_axis = 1 if channel_axis == 0 else 0
        others = [axis for axis in range(len(shape)) if axis not in (sample_axis, channel_axis)]
        if not others:
            raise ShapeError(f"lengths need an axis along which x is padded, but x has shape {shape}")
        along = others[0] if length_axis is None else canonicalize_axis(length_axis, len(shape))
        if along == sample_axis:
            raise ValueError(f"length_axis must not be the axis of the samples, but is {length_axis}")
        values: Array = as_host(as_array(lengths, "lengths"))
        if values.dtype.kind not in "iu" and values.size:
            raise TypeError(f"lengths must be integers, but have dtype {values.dtype}")
        expected = (shape[sample_axis],)
        if values.shape != expected:
            raise ShapeError(f"lengths should have shape {expected}, one for each sample, but have {values.shape}")
        bad = np.flatnonzero((values < 0) | (values > shape[along]))
        if bad.size:
            raise ValueError(f"lengths[{bad[0]}] is {values[bad[0]]}, but should lie in [0, {shape[along]}]")
        return cls(values.astype(np.int64), sample_axis, along)

    def mask(self, shape: Axes) -> Array:
        """As a boolean array on the host that broadcasts to `shape`."""
        inside: Array = np.arange(shape[self.length_axis]) < self.values[:, None]
        if self.sample_axis > self.length_axis:
            inside = inside.T
        axes = (self.sample_axis, self.length_axis)
        return inside.reshape(tuple(n if axis in axes else 1 for axis, n in enumerate(shape)))

    def on_lines(self, shape: Axes, order: Axes, width: int) -> Array | None:
        """How many of the first elements of each line take part, int64; None if others do.

        x has its axes in this order, and a line is a run of `width` neighbours along its last ones.
        """
        tail = tail_of(shape, order, width)
        if tail is None or (shape[self.sample_axis] > 1 and self.sample_axis in tail):
            return None
        if self.length_axis not in tail:
            taken = self.mask(shape) * np.int64(width)
        elif tail[0] == self.length_axis:
            taken = self.values.reshape(tuple(-1 if a == self.sample_axis else 1 for a in range(len(shape))))
            taken = taken * np.int64(width // shape[self.length_axis])
        else:
            return None
        return _on_lines(taken, shape, order, tail)

    def in_order(self, order: Axes, flipped: Axes = ()) -> Lengths | None:
        """Those of x with its axes in this order, some turned round; None if padding comes first then."""
        if self.length_axis in flipped:
            return None
        values = self.values[::-1] if self.sample_axis in flipped else self.values
        return Lengths(values, order.index(self.sample_axis), order.index(self.length_axis))

    def part(self, part: slice) -> Lengths:
        """Those of ``x[part]``."""
        if self.sample_axis == 0:
            return self._replace(values=self.values[part])
        if self.length_axis == 0:
            return self._replace(values=np.clip(self.values - part.start, 0, part.stop - part.start))
        return self


def tail_of(shape: Axes, order: Axes, width: int) -> Axes | None:
    """Which of the last axes in this order make lines of `width`, without those of length 1; None if none do."""
    tail: list[int] = []
    for axis in reversed(order):
        if width == 1:
            break
        if shape[axis] > 1:
            tail.insert(0, axis)
            width, rest = divmod(width, shape[axis])
            if rest:
                return None
    return tuple(tail) if width == 1 else None


def _on_lines(counts: Array, shape: Axes, order: Axes, tail: Axes) -> Array:
    """Counts of lines, which broadcast to x's shape with `tail` taken out, one after the other."""
    lines = [1 if axis in tail else shape[axis] for axis in order]
    return np.ascontiguousarray(np.broadcast_to(counts.transpose(order), lines)).reshape(-1)


class MaskArguments(NamedTuple):
    """What a caller says, not looked at yet."""

    where: Any = None
    lengths: Any = None
    length_axis: int | None = None
    padding: str = "zero"

    @property
    def chooses(self) -> bool:
        """Whether some elements may have no part."""
        return self.lengths is not None or not (self.where is None or self.where is True)

    def given(self) -> dict[str, Any]:
        """As keywords; none where nothing was said, as in most calls."""
        where, lengths, length_axis, padding = self
        if where is None and lengths is None and length_axis is None and padding == "zero":
            return {}
        return self._asdict()

    def of(self, x: Array, channel_axis: int | None = None) -> Mask | None:
        """Checked; None if all elements of x take part, which is what most callers want."""
        where, lengths, length_axis, padding = self
        if padding != "zero":
            check_choice("padding", padding, PADDINGS)
        if where is None and lengths is None and length_axis is None:
            return None
        if lengths is None and length_axis is not None:
            raise ValueError("length_axis says where lengths count, but lengths are None")
        taken = as_mask(where, x.shape)
        if taken is None and lengths is None:
            return None
        given = None if lengths is None else Lengths.of(x.shape, lengths, length_axis, channel_axis)
        return Mask(taken, given, x.shape, padding == "keep")


#: All elements take part.
EVERYTHING = MaskArguments()


class Mask:
    """What a caller of a norm says of the elements of x; at least one of `where` and `lengths` is given."""

    def __init__(self, where: Array | None, lengths: Lengths | None, shape: Axes, keep: bool) -> None:
        self.where, self.lengths, self.shape = where, lengths, shape
        #: Whether elements that are left out keep their values; else they become zero.
        self.keep = keep

    def split(self, place: Any, shape: Axes, axis: int) -> Mask:
        """Of x with another `shape`, in which `axis` has become two."""
        lengths = self.lengths
        if lengths is not None and lengths.length_axis == axis:  # then neither of the two ends in padding
            return Mask(self.boolean_at(place).reshape(shape), None, shape, self.keep)
        where = None if self.where is None else self.where.reshape(shape)
        if lengths is not None:
            sample_axis, length_axis = (a + (a > axis) for a in lengths[1:])
            lengths = Lengths(lengths.values, sample_axis, length_axis)
        return Mask(where, lengths, shape, self.keep)

    def part(self, piece: tuple[slice, ...]) -> MaskArguments:
        """What to say of ``x[piece]``, in which axes but the samples' are whole."""
        where = None if self.where is None else self.where[piece]
        padding = "keep" if self.keep else "zero"
        if self.lengths is None:
            return MaskArguments(where, padding=padding)
        values, sample_axis, length_axis = self.lengths
        lengths = values[piece[sample_axis]] if sample_axis < len(piece) else values
        return MaskArguments(where, lengths, length_axis, padding)

    def transposed(self, order: Axes) -> Mask:
        """Of x with its axes in this order."""
        where = None if self.where is None else self.where.transpose(order)
        lengths = None if self.lengths is None else self.lengths.in_order(order)
        return Mask(where, lengths, tuple(self.shape[axis] for axis in order), self.keep)

    def boolean_at(self, place: Any) -> Array:
        """Which elements take part, broadcast to x's shape: on the host or on a device."""
        inside = self.where
        if self.lengths is not None:
            inside = place.from_host(self.lengths.mask(self.shape))
            if self.where is not None:
                inside = place.evaluate(np.logical_and, self.where, inside)
        return np.broadcast_to(inside, self.shape)  # type: ignore[arg-type]

    def weights(self, place: Any) -> Array | Lengths:
        """As :func:`numbanorm._reduction.moments` takes it: which elements count there."""
        return self.lengths if self.where is None and self.lengths is not None else self.boolean_at(place)

    def taken(self, order: Axes, view: Axes, width: int) -> Array:
        """As launchers on the host take it: int64 counts for lines of `width`, or booleans of the shape `view`.

        x has its axes in this order.
        """
        counts = None
        if self.where is None:
            counts = self.lengths.on_lines(self.shape, order, width)  # type: ignore[union-attr]
        elif self.lengths is None:
            counts = self._whole_lines(order, width)
        if counts is not None:
            return counts
        return np.ascontiguousarray(self.boolean_at(_arrays.HOST).transpose(order)).reshape(view)

    def _whole_lines(self, order: Axes, width: int) -> Array | None:
        """The same of a `where` that broadcasts along lines: each takes part as a whole or not at all."""
        assert self.where is not None
        tail = tail_of(self.shape, order, width)
        if not tail or any(self.where.strides[axis] for axis in tail):
            return None
        first = self.where[tuple(slice(1) if axis in tail else slice(None) for axis in range(self.where.ndim))]
        return _on_lines(first * np.int64(width), self.shape, order, tail)


def weights_of(mask: Mask | None, place: Any) -> Array | Lengths | None:
    """Those of a mask, or None where there is none."""
    return None if mask is None else mask.weights(place)
