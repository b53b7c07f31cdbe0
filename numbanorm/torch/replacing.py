"""Norms of an existing model become ours."""

from __future__ import annotations

from torch import nn

from numbanorm.torch import modules

#: torch's classes and ours of the same name.
_OURS: dict[type, type] = {
    getattr(nn, ours.__name__): ours
    for ours in (
        modules.BatchNorm1d,
        modules.BatchNorm2d,
        modules.BatchNorm3d,
        modules.GroupNorm,
        modules.InstanceNorm1d,
        modules.InstanceNorm2d,
        modules.InstanceNorm3d,
        modules.LayerNorm,
        modules.RMSNorm,
    )
}


def replace_norms(model: nn.Module) -> nn.Module:
    """Make every torch norm in `model`, and `model` itself if it is one, compute with this library.

    Nothing but the class of these modules changes: ours add a ``forward`` and no state. So parameters,
    buffers, hooks, modes and attributes stay the very same objects, a module that is used in
    several places stays one module, and optimisers, ``DataParallel`` wrappers or whoever else holds a
    module or a parameter go on as before. A new module in its place could not promise that.

    Only modules of exactly torch's classes are changed. Subclasses, which may compute something
    else (``SyncBatchNorm``, quantised or parametrised norms, a model's own), are left alone; so are
    lazy norms, which do not know their features yet: call this after their first batch.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Notes
    -----
    In evaluation, ``torch.nn.TransformerEncoderLayer`` calls a fused kernel of torch's with the norms'
    parameters, not the norms; ``torch.backends.mha.set_fastpath_enabled(False)`` prevents it.

    Examples
    --------
    >>> import torch, numbanorm.torch as nt
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))
    >>> nt.replace_norms(model) is model
    True
    >>> type(model[1]).__module__
    'numbanorm.torch.modules'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but got {type(model).__name__}")
    for module in model.modules():
        ours = _OURS.get(type(module))
        if ours is not None:
            module.__class__ = ours
    return model
