"""What only the time of import can tell about this process."""

from __future__ import annotations

import os
import sys

#: The process that imported numbanorm; another one is a forked child.
PID = os.getpid()
#: Whether Numba's threads ran before: then they may even be a parent's.
THREADS_RAN_BEFORE = bool(getattr(sys.modules.get("numba.np.ufunc.parallel"), "_is_initialized", False))
