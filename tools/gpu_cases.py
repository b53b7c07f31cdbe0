"""What ``gpu_check.py`` measures: each operation once, its shapes, its bytes, and how each library does it.

Nothing here needs a device until operands are made: byte counts and names are plain integers and text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

DTYPES = {"float32": 4, "bfloat16": 2}
#: Half of an H200's L2: below it, what was read for the statistics is still there for the result.
L2_BYTES = 40 << 20


class Operands(NamedTuple):
    """Arrays of one library: x, parameters and running statistics in float32, and for gradients dy."""

    x: Any
    gamma: Any
    beta: Any
    mean: Any
    var: Any
    dy: Any = None


Call = Callable[[Any, Operands], Any]


@dataclass(frozen=True)
class Operation:
    """A row of the table: (library's module, operands) -> the result, for each library that has it.

    `passes`: how often x's bytes must move at least, reads and writes counted.
    """

    name: str
    passes: int
    channel_axis: int
    numbanorm: Call
    torch: Call
    cupy: Call | None = None
    #: How many arrays are needed in full before anything is written, and then again.
    twice: int = 0
    #: Whether it is a gradient, of which dy is an operand, too.
    backward: bool = False


@dataclass(frozen=True)
class Case:
    """An operation on a shape and dtype."""

    operation: Operation
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """Operation, shape and dtype."""
        return f"{self.operation.name} {'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def x_bytes(self) -> int:
        """Of one array of x's size."""
        return prod(self.shape) * DTYPES[self.dtype]

    @property
    def least_bytes(self) -> int:
        """What must move: x (and dy) in, y or dx out; once more in what is needed twice and does not fit the L2."""
        twice = self.operation.twice
        return self.x_bytes * (self.operation.passes + twice * (twice * self.x_bytes > L2_BYTES))

    @property
    def channels(self) -> int:
        """Length of the parameters."""
        return self.shape[self.operation.channel_axis]


def num_groups(channels: int) -> int:
    """32, as in Wu & He (2018), or two channels a group where there are few."""
    return min(32, channels // 2)


def _like(torch: Any, parameter: Any, x: Any) -> Any:
    """torch's row norms want parameters in x's dtype."""
    return parameter.to(x.dtype)


def _torch_layer_norm(torch: Any, o: Operands) -> Any:
    gamma, beta = _like(torch, o.gamma, o.x), _like(torch, o.beta, o.x)
    return torch.nn.functional.layer_norm(o.x, o.gamma.shape, gamma, beta)


def _torch_rms_norm(torch: Any, o: Operands) -> Any:
    return torch.nn.functional.rms_norm(o.x, o.gamma.shape, _like(torch, o.gamma, o.x), 1e-6)


def _torch_batch_norm(training: bool, last: bool = False) -> Call:
    def call(torch: Any, o: Operands) -> Any:
        x = o.x.permute(0, 3, 1, 2) if last else o.x
        y = torch.nn.functional.batch_norm(x, o.mean, o.var, o.gamma, o.beta, training)
        return y.permute(0, 2, 3, 1) if last else y

    return call


def _torch_group_norm(torch: Any, o: Operands) -> Any:
    gamma, beta = _like(torch, o.gamma, o.x), _like(torch, o.beta, o.x)
    return torch.nn.functional.group_norm(o.x, num_groups(o.x.shape[1]), gamma, beta)


def _mean_var(name: str, axis: Any, channel_axis: int) -> Operation:
    def torch_call(torch: Any, o: Operands) -> Any:
        return torch.var_mean(o.x, axis, correction=0)[::-1]

    return Operation(
        name,
        1,
        channel_axis,
        numbanorm=lambda nn, o: nn.mean_var(o.x, axis),
        torch=torch_call,
        cupy=lambda cp, o: o.x.var(axis),
    )


def _remembered(prepare: Call, call: Callable[[Any], Any]) -> Call:
    """A gradient whose forward is made once for the same operands: not what is timed."""
    last: list[Any] = [None, None]

    def remembered(module: Any, o: Operands) -> Any:
        if last[0] is not o:
            last[:] = o, prepare(module, o)
        return call(last[1])

    return remembered


def _backward(name: str, shape: tuple[int, int, int], forward: str, torch_forward: Call, **options: Any) -> Operation:
    """A gradient of all parameters; `shape`: passes, arrays needed twice, channel axis."""
    passes, twice, axis = shape
    has_beta = forward != "rms_norm"
    spread = {"groups": num_groups} if forward == "group_norm" else {}

    def prepare(nn: Any, o: Operands) -> Any:
        dy = o.x[::-1].copy() if o.dy is None else o.dy
        first = [count(o.x.shape[1]) for count in spread.values()]
        parameters = (o.gamma, o.beta) if has_beta else (o.gamma,)
        _, mean, rstd = getattr(nn, forward)(o.x, *first, *parameters, return_stats=True, **options)
        backward = getattr(nn, f"{forward}_backward")
        return lambda: backward(dy, o.x, *first, o.gamma, mean, rstd, **options)[0]

    def prepare_torch(torch: Any, o: Operands) -> Any:
        dy = o.x.flip(0) if o.dy is None else o.dy
        inputs = [a.detach().requires_grad_() for a in ((o.x, o.gamma, o.beta) if has_beta else (o.x, o.gamma))]
        y = torch_forward(torch, Operands(*inputs, *o[len(inputs) :]))
        return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)[0]

    ours, theirs = (_remembered(made, lambda call: call()) for made in (prepare, prepare_torch))
    return Operation(name, passes, axis, ours, theirs, twice=twice, backward=True)


_ROWS = [(1, 768), (512, 768), (16384, 1024), (4096, 8192)]
_NOTED = [
    (8192, 128),
    (131072, 128),
    (2048, 4096),
    (8192, 4096),
    (16384, 4096),
    (8192, 8192),
    (4096, 16384),
    (1024, 12288),
]
_LONG = [(1024, 65536), (256, 262144)]
_TALL = [(1_000_000, 16)]
_IMAGES = [(8, 64, 56, 56), (32, 512, 7, 7), (64, 256, 56, 56)]
_LAST = [(n, h, w, c) for n, c, h, w in _IMAGES]

#: Operations with their shapes, the most telling first: where time is short the rest is left out.
TABLE: tuple[tuple[Operation, list[tuple[int, ...]]], ...] = (
    (
        Operation("layer_norm", 2, -1, lambda nn, o: nn.layer_norm(o.x, o.gamma, o.beta), _torch_layer_norm),
        [*_NOTED, *_LONG, *_ROWS],
    ),
    (Operation("rms_norm", 2, -1, lambda nn, o: nn.rms_norm(o.x, o.gamma), _torch_rms_norm), [*_NOTED, *_LONG, *_ROWS]),
    (_mean_var("mean_var_last_axis", -1, -1), [(8192, 4096), (131072, 128), *_LONG, *_ROWS]),
    (_mean_var("mean_var_first_axis", 0, -1), [(8192, 4096), *_ROWS[1:], *_TALL]),
    (_mean_var("mean_var_all_axes", (0, 1), -1), [(8192, 4096), *_ROWS[1:]]),
    (_mean_var("mean_var_channels", (0, 2, 3), 1), _IMAGES),
    (
        Operation(
            "batch_norm_training",
            2,
            1,
            lambda nn, o: nn.batch_norm(*o[:5], training=True),
            _torch_batch_norm(True),
            twice=1,
        ),
        _IMAGES,
    ),
    (
        Operation(
            "batch_norm_training_nhwc",
            2,
            -1,
            lambda nn, o: nn.batch_norm(*o[:5], training=True, channel_axis=-1),
            _torch_batch_norm(True, last=True),
            twice=1,
        ),
        _LAST,
    ),
    (
        Operation(
            "batch_norm_evaluation", 2, 1, lambda nn, o: nn.batch_norm(*o[:5], training=False), _torch_batch_norm(False)
        ),
        _IMAGES,
    ),
    (
        Operation(
            "group_norm",
            2,
            1,
            lambda nn, o: nn.group_norm(o.x, num_groups(o.x.shape[1]), o.gamma, o.beta),
            _torch_group_norm,
        ),
        _IMAGES,
    ),
    (
        Operation(
            "instance_norm",
            2,
            1,
            lambda nn, o: nn.instance_norm(o.x, o.gamma, o.beta),
            lambda torch, o: torch.nn.functional.instance_norm(o.x, weight=o.gamma, bias=o.beta),
        ),
        _IMAGES,
    ),
    (
        Operation(
            "standardize",
            2,
            -1,
            lambda nn, o: nn.standardize(o.x, 0),
            lambda torch, o: (o.x - o.x.mean(0)) * torch.rsqrt(o.x.var(0, correction=0) + 1e-5),
            twice=1,
        ),
        [(8192, 4096), *_TALL],
    ),
    (_backward("layer_norm_backward", (3, 0, -1), "layer_norm", _torch_layer_norm), [*_NOTED, (1024, 65536)]),
    (_backward("rms_norm_backward", (3, 0, -1), "rms_norm", _torch_rms_norm), _NOTED),
    (
        _backward("batch_norm_backward", (3, 2, 1), "batch_norm", _torch_batch_norm(True), training=True),
        _IMAGES,
    ),
    (
        _backward(
            "batch_norm_backward_nhwc",
            (3, 2, -1),
            "batch_norm",
            _torch_batch_norm(True, last=True),
            training=True,
            channel_axis=-1,
        ),
        _LAST,
    ),
    (_backward("group_norm_backward", (3, 0, 1), "group_norm", _torch_group_norm), _IMAGES),
    (
        _backward(
            "instance_norm_backward",
            (3, 0, 1),
            "instance_norm",
            lambda torch, o: torch.nn.functional.instance_norm(o.x, weight=o.gamma, bias=o.beta),
        ),
        _IMAGES,
    ),
)


def cases() -> list[Case]:
    """All cases; the dtypes of a shape side by side."""
    return [
        Case(operation, shape, dtype)
        for operation, shapes in TABLE
        for shape in dict.fromkeys(shapes)
        for dtype in DTYPES
    ]
