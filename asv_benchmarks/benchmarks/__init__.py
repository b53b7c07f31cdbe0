"""Benchmarks of numbanorm beside NumPy and torch; see README.md in the folder above.

Set here is what libraries read while they are loaded, before any of them is.
"""

import os
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir


def _kernel_cache() -> str:
    """A folder named after the whole package.

    Numba compares the file of a kernel with its cache, but not the files of what the kernel
    calls: after a change there, an old kernel would be timed.
    """
    package = Path(find_spec("numbanorm").origin).parent
    source = b"".join(path.read_bytes() for path in sorted(package.rglob("*.py")))
    user = os.getuid() if hasattr(os, "getuid") else 0
    return str(Path(gettempdir(), f"numbanorm-kernels-{user}-{sha256(source).hexdigest()[:16]}"))


os.environ.setdefault("NUMBA_CACHE_DIR", _kernel_cache())
# Loads none of the libraries, and sets what torch's threads read.
import_module("numbanorm._bench")
