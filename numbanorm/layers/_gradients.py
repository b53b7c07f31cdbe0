"""What a layer keeps of a call for its gradient, and how it gives it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numbanorm._arguments import as_array
from numbanorm._arrays import place_of
from numbanorm._guests import everywhere
from numbanorm._masks import EVERYTHING, MaskArguments

Array = NDArray[Any]

_NOTHING_KEPT = (
    "{name}.backward needs a call of the layer first, in training; in evaluation only calls "
    "with requires_grad = True keep what it needs"
)
_CALLED_ALREADY = "{name}.backward was called already for the last call of the layer; call the layer again first"
_OVERWRITTEN = "{name}.backward needs x, which the last call of the layer has overwritten; pass another out"


class Kept(NamedTuple):
    """Of one call: x itself, not a copy, and one mean and rstd per set."""

    x: Array
    mean: Array
    rstd: Array
    #: Whether the statistics do not depend on x.
    fixed: bool
    #: What else the gradient of this layer needs.
    also: tuple[Any, ...] = ()
    #: Which elements took part: the caller's own arrays, not copies.
    chosen: MaskArguments = EVERYTHING


class Differentiable:
    """The gradient of a layer.

    Attributes
    ----------
    grad : dict
        After :meth:`backward`, the gradients of what the layer learns ("gamma", "beta", ...), as far
        as it has these, with their shape and dtype. Each backward replaces them; they are not added up.
    requires_grad : bool or None
        Whether calls keep x and its statistics for :meth:`backward`: None (default) means in
        training only, so that evaluation holds no memory.
    """

    dtype: np.dtype[Any]
    training: bool
    gamma: Array | None
    beta: Array | None

    requires_grad: bool | None = None
    #: Names of what is learnt, in the order of :meth:`_gradients`.
    _learnt: tuple[str, ...] = ("gamma", "beta")
    #: What the last call kept, or why there is nothing.
    _kept: Kept | str = _NOTHING_KEPT

    def __init__(self) -> None:
        self.grad: dict[str, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: not an x."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def _keeps(self) -> bool:
        return self.training if self.requires_grad is None else self.requires_grad

    def _want(self) -> str:
        """What a norm should return beside y."""
        return "rstd" if self._keeps() else ""

    def _keep(
        self,
        x: Array,
        out: Array | None,
        statistics: Any,
        *,
        fixed: bool = False,
        also: tuple[Any, ...] = (),
        chosen: MaskArguments = EVERYTHING,
    ) -> None:
        """Remember a call, whose mean and rstd are `statistics`; or nothing, if these are empty."""
        if not statistics:
            self._kept = _NOTHING_KEPT
        elif out is not None and place_of(x).overlap(x, out):
            self._kept = _OVERWRITTEN
        else:
            mean, rstd = statistics
            self._kept = Kept(x, mean, rstd, fixed, also, chosen)

    @everywhere
    def backward(self, dy: Any, *, out: Array | None = None) -> Array:
        """Gradient with respect to x of the last call, whose y has the gradient dy; fills :attr:`grad`.

        x must still be what it was in that call: the layer keeps it, not a copy; nor does it copy
        `where` and `lengths`.

        Parameters
        ----------
        dy : array_like
            Floating point, y's shape.
        out : array, optional
            Where to put the result; dy itself is allowed.

        Returns
        -------
        array
            dx, with x's shape, dtype and layout.

        Raises
        ------
        RuntimeError
            If there was no call that kept what is needed, or its gradient was taken already.
        ValueError
            If dy has another shape than y; then backward may be called again.
        """
        kept = self._kept
        if isinstance(kept, str):
            raise RuntimeError(kept.format(name=type(self).__name__))
        dx, *gradients = self._gradients(as_array(dy, "dy"), kept, out)
        self._kept = _CALLED_ALREADY
        self.grad = {
            name: gradient.astype(self.dtype, copy=False)
            for name, gradient in zip(self._learnt, gradients, strict=True)
            if getattr(self, name) is not None and gradient is not None
        }
        return dx  # type: ignore[no-any-return]

    def _gradients(self, dy: Array, kept: Kept, out: Array | None) -> tuple[Any, ...]:
        raise NotImplementedError
