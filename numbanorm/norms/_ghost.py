"""Ghost batch norm: batch norm of small virtual batches, cut from a large one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numbanorm import _engine
from numbanorm._arrays import HOST, place_of
from numbanorm._engine import checked_scale
from numbanorm._errors import degenerate_batch
from numbanorm._guests import everywhere
from numbanorm._masks import EVERYTHING, MaskArguments
from numbanorm.norms._batch import BatchNormSettings
from numbanorm.norms._checks import channel_axis_of, checked_input, delivered, other_axes, sample_axis_of

Array = NDArray[Any]


@everywhere
def ghost_batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    virtual_batch_size: int,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    channel_axis: int = 1,
    where: Any = None,
    lengths: Any = None,
    length_axis: int | None = None,
    padding: str = "zero",
    out: Any = None,
    return_stats: bool = False,
) -> Any:
    """Ghost batch normalisation (Hoffer et al. 2017): each virtual batch by its own statistics.

    The batch is cut into ``ceil(N / virtual_batch_size)`` virtual batches of equal size (or, where
    N does not divide, of sizes that differ by one). In training each is normalised as
    :func:`batch_norm` would, and updates the running statistics in turn; so these are what as
    many small batches would have left, and `momentum` is the weight of each.
    Evaluation is that of batch norm.

    Parameters
    ----------
    x : array_like
        Floating point, (N, C) or more axes.
    gamma, beta, running_mean, running_var
        As in :func:`batch_norm`; parameters are shared by all virtual batches.
    virtual_batch_size : int
        Most samples of a virtual batch.
    training, momentum, eps, channel_axis, where, lengths, length_axis, padding, out
        As in :func:`batch_norm`. The first axis that is not the channels' is that of the samples.
    return_stats : bool
        Also return the statistics of every virtual batch.

    Returns
    -------
    y : array
        With x's shape and dtype.
    mean, rstd : array
        Only with `return_stats`: one row per virtual batch, (n_virtual, C); in evaluation shaped
        to broadcast against x.

    Raises
    ------
    ValueError
        If `virtual_batch_size` is not positive, a virtual batch has one value per channel in
        training (then nothing is changed), and as :func:`batch_norm`.

    Examples
    --------
    >>> import numpy as np, numbanorm as nn
    >>> x = np.array([[1.0], [3.0], [10.0], [50.0]])
    >>> nn.ghost_batch_norm(x, virtual_batch_size=2, training=True).round(3).ravel()
    array([-1.,  1., -1.,  1.])
    """
    settings = BatchNormSettings(momentum, eps, channel_axis, biased=False)
    operands = (x, gamma, beta, running_mean, running_var)
    chosen = MaskArguments(where, lengths, length_axis, padding)
    if not training:
        want = "rstd" if return_stats else ""
        return delivered(settings(*operands, training=False, out=out, want=want, chosen=chosen), return_stats)
    return delivered(train(settings, operands, virtual_batch_size, None, out, return_stats, chosen), return_stats)


def train(
    settings: BatchNormSettings,
    operands: tuple[Any, ...],
    virtual_batch_size: int,
    momenta: Sequence[float] | None,
    out: Any,
    want: bool,
    chosen: MaskArguments = EVERYTHING,
) -> tuple[Array, ...]:
    """y, and with `want` the rows of means and rstds; `momenta` gives each virtual batch a momentum of its own."""
    x, gamma, beta, running_mean, running_var = operands
    given = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
    array, _ = checked_input(x, out, **given, where=chosen.where)
    axis = channel_axis_of(array, settings.channel_axis)
    checked_scale("ghost_batch_norm", settings.eps, positive=True)
    pieces = virtual_batches(array, axis, virtual_batch_size)
    mask = chosen.of(array, axis)
    place = place_of(array)
    y = _target(place, array, out)
    rows: list[tuple[Array, ...]] = []
    for i, piece in enumerate(pieces):
        step = settings if momenta is None else settings._replace(momentum=momenta[i])
        options: dict[str, Any] = {
            "out": y[piece],
            "want": "rstd" if want else "",
            "chosen": mask.part(piece) if mask else EVERYTHING,
        }
        result = step(array[piece], *operands[1:], training=True, **options)
        rows.append(result[1:])
    if out is not None and not place.overlap(out, y):
        place.copy(out, y)
    if not want:
        return (out if out is not None else y,)
    return (out if out is not None else y, *_stacked(place, rows, array.shape[axis]))


def virtual_batches(x: Array, axis: int, virtual_batch_size: int) -> list[tuple[slice, ...]]:
    """Which samples belong together; raises if some have one value per channel only."""
    size = index(virtual_batch_size)
    if size < 1:
        raise ValueError(f"virtual_batch_size must be positive, but got {size}")
    sample = sample_axis_of(axis)
    n = x.shape[sample]
    count = max(1, -(-n // size))
    if n // count * prod(x.shape[i] for i in other_axes(x.ndim, axis, sample)) == 1:
        raise degenerate_batch(x.shape)
    return [(slice(None),) * sample + (slice(n * i // count, n * (i + 1) // count),) for i in range(count)]


def _target(place: Any, x: Array, out: Any) -> Array:
    """Where to write piece by piece: `out`, unless that would write over pieces to come."""
    if out is not None and (not place.overlap(x, out) or _engine._same_memory(place, x, out)):
        return np.asarray(out) if place is HOST else out
    return _engine.empty_like(place, x)


def _stacked(place: Any, rows: list[tuple[Array, ...]], channels: int) -> tuple[Array, Array]:
    """The statistics of all pieces as two matrices."""
    mean, rstd = (place.empty((len(rows), channels), rows[0][0].dtype) for _ in range(2))
    for i, row in enumerate(rows):
        for target, statistic in zip((mean, rstd), row, strict=True):
            place.copy(target[i], statistic.reshape(-1))
    return mean, rstd
