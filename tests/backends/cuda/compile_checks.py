"""What the compiler makes of a kernel, without a device: registers, spills, instructions."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from cuda.bindings import nvjitlink

ARCHITECTURES = ((8, 0), (9, 0), (10, 0), (12, 0))


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture; `sass` is disassembled only when asked for."""

    name: str
    threads: int
    ptx: str
    cubin: bytes
    registers: int
    stack: int
    spills: int

    def sass(self):
        return disassemble(self.cubin)

    def count(self, instruction):
        """How often the SASS has an instruction, a regular expression such as ``LDG.*128``."""
        return len(re.findall(rf"\b{instruction}\b", self.sass()))


def compile_kernel(kernel, cc):
    """Compile and assemble a Kernel for a compute capability."""
    device = SimpleNamespace(compute_capability=cc)  # which Numba asks for when it compiles device functions
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        ptx = kernel.ptx(cc)
    return _assembled(kernel, ptx, cc)


def _assembled(kernel, ptx, cc):
    cubin, log = _link(ptx, f"sm_{cc[0]}{cc[1]}")
    stack, stores, loads = map(
        int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log).groups()
    )
    registers = int(re.search(r"Used (\d+) registers", log)[1])
    return Compiled(kernel.name, kernel.threads, ptx, cubin, registers, stack, stores + loads)


def _checked(kernel, compiled, double):
    assert double or not re.search(r"\.f64\b", compiled.ptx), f"{kernel} computes in double precision"
    assert ".func" not in compiled.ptx, f"{kernel}: a function was not inlined"
    assert compiled.stack == 0, f"{kernel}: {compiled.stack} bytes of stack"
    assert compiled.spills == 0, f"{kernel}: {compiled.spills} bytes of spills"
    assert compiled.registers * kernel.threads <= 65536, f"{kernel}: {compiled.registers} registers"
    return compiled


def check(kernel, cc, double=False):
    """Assert what every kernel keeps to, and return it compiled. `double`: it computes in float64."""
    return _checked(kernel, compile_kernel(kernel, cc), double)


def check_everywhere(kernel, double=False):
    """The same for all architectures, assembled from the PTX of the first, which they all take: {cc: compiled}."""
    first, *others = ARCHITECTURES
    compiled = {first: check(kernel, first, double)}
    ptx = compiled[first].ptx
    return compiled | {cc: _checked(kernel, _assembled(kernel, ptx, cc), double) for cc in others}


def _link(ptx, arch):
    options = [f"-arch={arch}", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        data = ptx.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "kernel.ptx")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
    except nvjitlink.nvJitLinkError as error:
        log = bytearray(nvjitlink.get_error_log_size(handle))
        nvjitlink.get_error_log(handle, log)
        raise AssertionError(log.decode()) from error
    finally:
        nvjitlink.destroy(handle)
    return bytes(cubin), log.decode()


def disassemble(cubin):
    """SASS, by the nvdisasm of the nvidia-cuda-nvdisasm wheel or of the PATH."""
    wheels = [Path(folder, "nvidia/cu13/bin/nvdisasm") for folder in {sysconfig.get_path("purelib"), *sys.path}]
    program = next((str(path) for path in wheels if path.is_file()), "nvdisasm")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([program, "-c", file.name], capture_output=True, text=True, check=True).stdout
