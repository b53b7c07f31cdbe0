"""State of layers in the words of Keras, flax and ONNX.

========  ==================================================  =======================
format    arrays                                              settings
========  ==================================================  =======================
Keras     gamma, beta, moving_mean, moving_variance           config: epsilon, momentum
flax      params: scale, bias; batch_stats: mean, var         attributes: the same
ONNX      scale, B, input_mean, input_var                     attributes: the same
========  ==================================================  =======================

Arrays are copied as they are: evaluation gives what it gave over there, and their round trip is
exact (that of a momentum of more than some fifteen digits may change its last one). What is
converted is how training goes on. All three give the momentum of the *old* statistics, ours is
``1 - momentum`` (in decimal arithmetic, so 0.9 is 0.1 and back again); all three track the
*biased* variance, and so does a layer that has loaded their state.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from numbanorm._errors import check_eps
from numbanorm.layers._layer import _KEYS, Layer

#: Where each attribute of a layer stands in a nested dictionary.
Paths = dict[str, tuple[str, ...]]

_KERAS: Paths = {
    "gamma": ("gamma",),
    "beta": ("beta",),
    "running_mean": ("moving_mean",),
    "running_var": ("moving_variance",),
}
_FLAX: Paths = {
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_ONNX: Paths = {
    "gamma": ("scale",),
    "beta": ("B",),
    "running_mean": ("input_mean",),
    "running_var": ("input_var",),
}


class Exchangeable(Layer):
    """A layer whose state passes to and from Keras, flax and ONNX."""

    eps: float
    momentum: float | None = None
    momentum_convention: str = "torch"
    biased: bool

    #: What this layer is called by otherwise than batch norm.
    _keras_names: Paths = {}  # noqa: RUF012
    _onnx_names: Paths = {}  # noqa: RUF012

    def to_keras_state(self) -> dict[str, Any]:
        """Copies of all arrays under the names of Keras' weights, and ``config``: epsilon and momentum.

        ``keras_layer.set_weights`` takes the arrays in this order. Without parameters or running
        statistics their names are missing, as in Keras. A cumulative average
        (``momentum=None``) has no counterpart, and no momentum is written.

        Examples
        --------
        >>> import numbanorm as nn
        >>> state = nn.BatchNorm(2).to_keras_state()
        >>> list(state), state["config"]
        (['gamma', 'beta', 'moving_mean', 'moving_variance', 'config'], {'epsilon': 1e-05, 'momentum': 0.9})
        """
        return self._written({**_KERAS, **self._keras_names}, "config")

    def load_keras_state(self, state: Mapping[str, Any]) -> None:
        """Copy all arrays, and epsilon and momentum as far as ``config`` has them; the layer stays where it is.

        A layer with running statistics tracks the biased variance from then on, as Keras does.
        Other entries of ``config`` are not looked at, so ``get_config()`` will do.

        Raises
        ------
        KeyError
            If names are missing or unexpected.
        ValueError
            If a shape differs, or a setting is out of range. In either case nothing is changed.

        Examples
        --------
        >>> import numpy as np, numbanorm as nn
        >>> ones = np.ones(2)
        >>> weights = {"gamma": ones, "beta": ones, "moving_mean": ones, "moving_variance": ones}
        >>> layer = nn.BatchNorm(2, channel_axis=-1)
        >>> layer.load_keras_state({**weights, "config": {"momentum": 0.99, "epsilon": 0.001}})
        >>> layer.momentum, layer.eps, layer.running_mean
        (0.01, 0.001, array([1., 1.], dtype=float32))
        """
        self._read(state, {**_KERAS, **self._keras_names}, "config")

    def to_flax_state(self) -> dict[str, Any]:
        """Copies of all arrays as a flax module's variables, and ``attributes``: epsilon and momentum.

        Otherwise as :meth:`to_keras_state`.

        Examples
        --------
        >>> import numbanorm as nn
        >>> state = nn.BatchNorm(2).to_flax_state()
        >>> {group: list(entries) for group, entries in state.items()}
        {'params': ['scale', 'bias'], 'batch_stats': ['mean', 'var'], 'attributes': ['epsilon', 'momentum']}
        """
        return self._written(_FLAX, "attributes")

    def load_flax_state(self, state: Mapping[str, Any]) -> None:
        """Copy all arrays of a module's variables; otherwise as :meth:`load_keras_state`."""
        self._read(state, _FLAX, "attributes")

    def to_onnx_state(self) -> dict[str, Any]:
        """Copies of all arrays under the names of the operator's inputs, and ``attributes``: epsilon and momentum.

        The operator is BatchNormalization, InstanceNormalization, GroupNormalization,
        LayerNormalization or RMSNormalization. Otherwise as :meth:`to_keras_state`.

        Examples
        --------
        >>> import numbanorm as nn
        >>> list(nn.GroupNorm(2, 4).to_onnx_state())
        ['scale', 'bias', 'attributes']
        """
        return self._written({**_ONNX, **self._onnx_names}, "attributes")

    def load_onnx_state(self, state: Mapping[str, Any]) -> None:
        """Copy all arrays of an operator's inputs; otherwise as :meth:`load_keras_state`."""
        self._read(state, {**_ONNX, **self._onnx_names}, "attributes")

    def _own(self, paths: Paths) -> Paths:
        """Those that this layer has."""
        if set(self._learnt) - paths.keys():
            raise TypeError(f"{type(self).__name__} has no counterpart in other frameworks; pass its state_dict()")
        return {name: path for name, path in paths.items() if getattr(self, name) is not None}

    def _written(self, paths: Paths, settings: str) -> dict[str, Any]:
        own = self.state_dict()
        state: dict[str, Any] = {}
        for name, (*groups, key) in self._own(paths).items():
            target = state
            for group in groups:
                target = target.setdefault(group, {})
            target[key] = own[_KEYS[name]]
        state[settings] = {"epsilon": self.eps}
        if self.running_mean is not None and self.momentum is not None:
            kept = self.momentum_convention == "keep"
            state[settings]["momentum"] = self.momentum if kept else _complement(self.momentum)
        return state

    def _read(self, state: Mapping[str, Any], paths: Paths, settings: str) -> None:
        given = _flattened({key: value for key, value in state.items() if key != settings})
        own = self._own(paths)
        missing = sorted(".".join(path) for path in set(own.values()) - given.keys())
        unexpected = sorted(".".join(path) for path in given.keys() - set(own.values()))
        if missing or unexpected:
            raise KeyError(f"{type(self).__name__}: missing names {missing}, unexpected names {unexpected}")
        options = state.get(settings, {})
        eps, momentum = options.get("epsilon", self.eps), options.get("momentum")
        check_eps(type(self).__name__, eps)
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], but got {momentum}")
        self.load_state_dict({**self.state_dict(), **{_KEYS[name]: given[path] for name, path in own.items()}})
        self.eps = float(eps)
        if self.running_mean is not None:
            self.biased = True
            if momentum is not None:
                self.momentum = float(momentum) if self.momentum_convention == "keep" else _complement(momentum)


def _complement(momentum: float) -> float:
    """``1 - momentum`` of the decimal number that is meant, so that the complement of 0.9 is 0.1."""
    return float(1 - Decimal(repr(float(momentum))))


def _flattened(state: Mapping[str, Any], *groups: str) -> dict[tuple[str, ...], Any]:
    """Entries of a nested dictionary by their paths."""
    flat: dict[tuple[str, ...], Any] = {}
    for key, value in state.items():
        flat.update(_flattened(value, *groups, key) if isinstance(value, Mapping) else {(*groups, key): value})
    return flat
