"""Builds the native kernels (runtime/ring/native) if a C++ compiler is there; all else is in pyproject.toml.

Without them spuvm runs the same programs, slower. `SPUVM_BUILD_NATIVE=require` makes a failed build an error,
`SPUVM_BUILD_NATIVE=no` leaves them out.
"""

import importlib.util
import os
import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("SPUVM_BUILD_NATIVE", "")
REQUIRED = WANTED == "require"


class OptionalBuild(build_ext):
    """A build whose failure, whatever it is, is reported and passed over."""

    def build_extension(self, ext):
        try:
            # XLA's FFI headers come with jaxlib; found without importing it, which takes a second.
            jaxlib = importlib.util.find_spec("jaxlib")
            if jaxlib is None or jaxlib.origin is None:
                raise FileNotFoundError("jaxlib, whose headers the kernels need, is not installed")
            ext.include_dirs.append(str(Path(jaxlib.origin).parent / "include"))
            super().build_extension(ext)
        except Exception as error:
            if REQUIRED:
                raise
            self.warn(f"spuvm is built without its native kernels, which are optional: {error}")


def packages() -> list[str]:
    """Every folder with an `__init__.py`; `spuvm/compiler` and `spuvm/runtime` are links to the two beside it."""
    found = []
    for package, folder in {"spuvm": "spuvm", "spuvm.compiler": "compiler", "spuvm.runtime": "runtime"}.items():
        for file in Path(folder).rglob("__init__.py"):
            inner = file.parent.relative_to(folder).parts
            if inner[:1] not in (("compiler",), ("runtime",)):
                found.append(".".join([package, *inner]))
    return sorted([*found, "spuvm.demo"])  # examples/hospitals, for `spuvm demo`


setup(
    packages=packages(),
    ext_modules=[]
    if WANTED == "no"
    else [
        Extension(
            "spuvm.runtime.ring._native",
            sources=[
                f"runtime/ring/native/{name}.cc"
                for name in (
                    "aes_ctr",
                    "ring_matmul",
                    "ring_wide",
                    "number_transform",
                    "oblivious",
                    "silent",
                    "proofs",
                    "proofs_of_bits",
                )
            ]
            + [
                f"runtime/engine/native/{name}.cc" for name in ("engine", "loops", "keyed", "views", "calls", "threads")
            ],
            depends=[
                "runtime/ring/native/ring_tile.h",
                "runtime/ring/native/ring_work.h",
                "runtime/ring/native/proofs_loops.h",
                "runtime/engine/native/engine.h",
                "runtime/engine/native/keyed.h",
                "runtime/engine/native/loops.h",
            ],
            define_macros=[("SPUVM_SOURCES", f'"{runpy.run_path("runtime/ring/native_sources.py")["digest"]()}"')],
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-Wno-psabi"],
            optional=not REQUIRED,
        )
    ],
    cmdclass={"build_ext": OptionalBuild},
)
