"""Compiles ``kernels.c`` for the processor at hand, once, and loads it.

Where there is no C compiler, or it cannot do it, everything is computed by torch instead: the same
answers, more slowly.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from functools import cache
from hashlib import blake2b
from pathlib import Path

import torch

from proassist_lit.atomic import replacing
from proassist_lit.cache_folder import cache_folder

SOURCE = Path(__file__).with_name("kernels.c")

REALS = {torch.float32: "float", torch.float64: "double"}
"""What numbers are called in C."""

COMPILE = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC", "-std=gnu11", "-c")
LINK = ("-shared", "-fopenmp")
"""Without -ffast-math: linked with it, a library lets the whole process flush denormals to 0."""


class CompileError(Exception):
    """The kernels cannot be had on this machine, or not for these numbers; says why."""


@cache
def load_kernels(dtype: torch.dtype, head_size: int) -> ctypes.CDLL:
    """The kernels for numbers of ``dtype`` and attention heads of ``head_size`` features.

    They are compiled when they are first asked for, which takes some seconds, and kept in the
    user's cache folder.

    Raises:
        CompileError: there is no compiler, or it failed, or these numbers are not known.
    """
    if dtype not in REALS or head_size % 2:
        raise CompileError(f"the kernels do not know {dtype} in heads of {head_size} features")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CompileError("no C compiler was found (cc or gcc on the path, or CC)")
    defines = (f"-DREAL={REALS[dtype]}", f"-DHEAD={head_size}")
    digest = blake2b(SOURCE.read_bytes(), digest_size=10)
    digest.update(repr((COMPILE, LINK, defines, compiler, _processor())).encode())
    library = cache_folder() / "kernels" / f"{digest.hexdigest()}.so"
    try:
        if not library.is_file():
            with replacing(library) as temporary:
                compiled = temporary.with_suffix(".o")
                try:
                    _run(compiler, *COMPILE, *defines, str(SOURCE), "-o", str(compiled))
                    _run(compiler, *LINK, str(compiled), "-lm", "-o", str(temporary))
                finally:
                    compiled.unlink(missing_ok=True)
        _share_threads()
        return ctypes.CDLL(str(library))
    except OSError as error:  # the folder cannot be written to, or the library not be loaded
        raise CompileError(f"{library}: {error}") from error


def _run(*command: str) -> None:
    """Run a compiler.

    Raises:
        CompileError: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def _processor() -> str:
    """What the processor can do, as far as the system tells: a home may serve several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _share_threads() -> None:
    """Let the kernels use torch's own OpenMP: two pools of threads would get in each other's way.

    Symbols of a library that is loaded globally come before those of a library's own needs.
    """
    for found in Path(torch.__file__).parent.glob("lib/lib*omp*.so*"):
        ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL)
