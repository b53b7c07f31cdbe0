"""The operations, which the suite shares with ``numbanorm bench``: see numbanorm/_bench/cases.py."""

from __future__ import annotations

from numbanorm._bench.cases import GRADIENTS, LIBRARIES, NORMS, OPERATIONS, STATISTICS, Operation, as_float64

__all__ = ["GRADIENTS", "LIBRARIES", "NORMS", "OPERATIONS", "STATISTICS", "Operation", "as_float64"]
