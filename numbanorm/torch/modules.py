"""torch's norms with another ``forward``; see :mod:`numbanorm.torch`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from numbanorm.torch._calls import BatchCall, GroupCall, InstanceCall, LayerCall, RMSCall, last_axes
from numbanorm.torch._function import normalize
from numbanorm.torch._tensors import array_of, served


class LayerNorm(nn.LayerNorm):
    """Layer normalisation over the last axes: :class:`torch.nn.LayerNorm` by :func:`numbanorm.layer_norm`.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> norm = nt.LayerNorm(3)
    >>> norm
    LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)
    >>> norm(torch.tensor([[1.0, 2.0, 3.0]])).detach()
    tensor([[-1.2247,  0.0000,  1.2247]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, (\\*, \\*normalized_shape)."""
        shape, weight, bias = self.normalized_shape, self.weight, self.bias
        if not served(input, weight, bias) or input.shape[-len(shape) :] != shape:
            return super().forward(input)
        return normalize(LayerCall(last_axes(len(shape)), self.eps), input, weight, bias)


class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation: :class:`torch.nn.RMSNorm` by :func:`numbanorm.rms_norm`.

    ``eps=None`` is the machine epsilon of the dtype of sums: float32's, or float64's for float64.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> nt.RMSNorm(2)(torch.tensor([3.0, 4.0])).detach()
    tensor([0.8485, 1.1314])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, (\\*, \\*normalized_shape)."""
        shape, weight = self.normalized_shape, self.weight
        if not served(x, weight, None) or x.shape[-len(shape) :] != shape:
            return super().forward(x)
        eps = self.eps
        if eps is None:
            eps = torch.finfo(torch.float64 if x.dtype is torch.float64 else torch.float32).eps
        return normalize(RMSCall(last_axes(len(shape)), eps), x, weight, None)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of (N, C, ...): :class:`torch.nn.GroupNorm` by :func:`numbanorm.group_norm`.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> nt.GroupNorm(2, 4)(torch.tensor([[1.0, 3.0, 10.0, 30.0]])).detach().round()
    tensor([[-1.,  1., -1.,  1.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, (N, C, ...)."""
        weight, bias = self.weight, self.bias
        if (
            not served(input, weight, bias)
            or input.dim() < 2
            or input.size(1) != self.num_channels
            or input.numel() == self.num_groups
        ):
            return super().forward(input)
        return normalize(GroupCall(self.num_groups, self.eps), input, weight, bias)


class _Batch(_BatchNorm):
    """The forward of all batch norms."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, (N, C, ...), updating the running statistics in training."""
        weight, bias, training = self.weight, self.bias, self.training
        if (
            not served(input, weight, bias)
            or input.dim() < 2
            or input.size(1) != self.num_features
            or (training and input.numel() == self.num_features)
        ):
            return super().forward(input)
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        mean = var = None
        if self.track_running_stats or not training:
            mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
            if training and count is not None:
                count.add_(1)
                if self.momentum is None:  # a cumulative average
                    momentum = 1.0 / float(count)
        training = training or (mean is None and var is None)
        return normalize(BatchCall(array_of(mean), array_of(var), training, momentum, self.eps), input, weight, bias)


class BatchNorm1d(_Batch, nn.BatchNorm1d):
    """Batch normalisation of (N, C) or (N, C, L): :class:`torch.nn.BatchNorm1d` by :func:`numbanorm.batch_norm`.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> norm = nt.BatchNorm1d(1)
    >>> norm(torch.tensor([[1.0], [3.0]])).detach().round().ravel(), norm.running_mean
    (tensor([-1.,  1.]), tensor([0.2000]))
    """


class BatchNorm2d(_Batch, nn.BatchNorm2d):
    """Batch normalisation of (N, C, H, W): :class:`torch.nn.BatchNorm2d` by :func:`numbanorm.batch_norm`.

    Examples
    --------
    >>> import numbanorm.torch as nt
    >>> list(nt.BatchNorm2d(4).state_dict())
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """


class BatchNorm3d(_Batch, nn.BatchNorm3d):
    """Batch normalisation of (N, C, D, H, W): :class:`torch.nn.BatchNorm3d` by :func:`numbanorm.batch_norm`.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> isinstance(nt.BatchNorm3d(4), torch.nn.BatchNorm3d)
    True
    """


class _Instance(_InstanceNorm):
    """What all instance norms do once torch has checked the rank and added an axis of samples."""

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        weight, bias, mean, var = self.weight, self.bias, self.running_mean, self.running_var
        n, channels = input.shape[:2]
        if (
            not served(input, weight, bias)
            or input.numel() == n * channels
            or (channels != self.num_features and mean is not None)
        ):
            return super()._apply_instance_norm(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        training = self.training or not self.track_running_stats
        return normalize(InstanceCall(array_of(mean), array_of(var), training, momentum, self.eps), input, weight, bias)


class InstanceNorm1d(_Instance, nn.InstanceNorm1d):
    """Instance normalisation of (N, C, L) or (C, L): :class:`torch.nn.InstanceNorm1d` by ours.

    As in torch, `num_batches_tracked` does not count, and ``momentum=None`` leaves the running
    statistics as they are; :class:`numbanorm.InstanceNorm1d` does better in both.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> nt.InstanceNorm1d(2)(torch.tensor([[1.0, 3.0], [10.0, 50.0]])).round()
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """


class InstanceNorm2d(_Instance, nn.InstanceNorm2d):
    """Instance normalisation of (N, C, H, W) or (C, H, W); see :class:`InstanceNorm1d`.

    Examples
    --------
    >>> import numbanorm.torch as nt
    >>> list(nt.InstanceNorm2d(4).parameters())
    []
    """


class InstanceNorm3d(_Instance, nn.InstanceNorm3d):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W); see :class:`InstanceNorm1d`.

    Examples
    --------
    >>> import numbanorm.torch as nt
    >>> sum(p.numel() for p in nt.InstanceNorm3d(4, affine=True).parameters())
    8
    """
