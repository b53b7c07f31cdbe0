"""A recorded call, written out in Python."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from numbanorm._recorder import Handed, Recorder, Shaped, View


class Script:
    """A recorded call as a function in Python: memory, views or addresses of arrays, kernels."""

    def __init__(
        self, recorder: Recorder, empty: Callable[..., Any], arguments: list[str], result: Any, places: list[int]
    ) -> None:
        """`arguments` names the values of a call: ``a0``, ``a1`` for arrays, ``_`` for options."""
        self.names: dict[str, Any] = {"empty": empty}
        self.lines = ["def play(values, empty=empty):", f"{', '.join(arguments)}, = values"]
        results = result if isinstance(result, tuple) else (result,)
        evaluated = {step.array for step in recorder.steps}
        self.arrays = recorder.arrays.copy()
        for place, one in zip(places, results, strict=True):
            if place not in evaluated:
                self.arrays[place] = np.asarray(one) if isinstance(one, np.generic) else one
        for i, like in enumerate(self.arrays):
            if i >= recorder.n_arguments and i not in evaluated:
                self.lines.append(f"a{i} = empty({like.shape}, {self._named('d', like.dtype)})")
        self.views: dict[View, str] = {}
        for run, operands, array in recorder.steps:
            given = ", ".join(map(self._operand, operands))
            self.lines.append(f"{'' if array is None else f'a{array} = '}{self._named('run', run)}({given})")
        returned = ", ".join(
            self._shaped(Shaped(place, one.shape)) + "[()]" * isinstance(one, np.generic)
            for place, one in zip(places, results, strict=True)
        )
        if isinstance(result, tuple):
            returned = f"{self._named('make', getattr(type(result), '_make', tuple))}(({returned},))"
        self.lines.append(f"return {returned}")

    def _named(self, prefix: str, value: Any) -> str:
        """A name for a value."""
        name = f"{prefix}{len(self.names)}"
        self.names[name] = value
        return name

    def _operand(self, operand: Any) -> str:
        if isinstance(operand, View):
            return self._view(operand)
        if isinstance(operand, Handed):
            return self._handed(operand)
        return self._shaped(operand) if isinstance(operand, Shaped) else self._constant(operand)

    def _constant(self, value: Any) -> str:
        """A number or a tuple of numbers as itself, others by a name."""
        numbers = value if type(value) is tuple else (value,)
        if all(type(number) in (int, bool) or (type(number) is float and isfinite(number)) for number in numbers):
            return repr(value)
        return self._named("c", value)

    def _handed(self, handed: Handed) -> str:
        if isinstance(handed.array, int):
            return f"a{handed.array}{handed.by}"
        name = self._named("c", handed.array)  # which keeps it alive
        return str(handed.array.data.ptr) if handed.by else name  # type: ignore[attr-defined]

    def _shaped(self, whole: Shaped) -> str:
        same = self.arrays[whole.array].shape == whole.shape
        return f"a{whole.array}" + ("" if same else f".reshape({whole.shape})")

    def _view(self, view: View) -> str:
        """The name of a view, which is made where it is used first."""
        array = self.arrays[view.array]
        same = view.dtype == array.dtype
        if same and view.writeable and array.ndim == 1:
            return f"a{view.array}"
        if view not in self.views:
            name = self.views[view] = f"v{len(self.views)}"
            cast = "" if same else f".view({self._named('d', view.dtype)})"
            self.lines.append(f"{name} = a{view.array}{cast}.ravel()")
            if not view.writeable:
                self.lines.append(f"{name}.setflags(False)")  # by keyword it takes three times as long
        return self.views[view]

    def compiled(self) -> Callable[..., Any]:
        """The function."""
        exec("\n    ".join(self.lines), self.names)  # of names and numbers given above
        play: Callable[..., Any] = self.names["play"]
        return play
