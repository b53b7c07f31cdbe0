"""The speed of numbanorm: one table of cases for ``numbanorm bench`` and for the asv suite.

========== ==================================================================
formulas   what the libraries compute, spelt as their users would
cases      the operations: each once, with the call of each library
cells      operations on shapes: what is measured, by profile
protocol   how anything is measured, and the check of results before it is
contests   the calls whose times are compared: with ceilings, peers, oneself
command    ``numbanorm bench``; with tables and figure, all that needs extras
========== ==================================================================
"""

import os

# Else torch's idle OpenMP threads spin on the cores that are being measured; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
