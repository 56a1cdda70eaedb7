"""The native kernels (AES-CTR, ring matmul): found, loaded and told to XLA, all optional.

The shared library is built by `setup.py` when a C++ compiler is there. Whatever uses it has a
twin with the same bits, in pure XLA or OpenSSL, so nothing but speed depends on it.

Environment: `SPUVM_NATIVE=0`, read once, at the first use, leaves the library unloaded.
"""

import ctypes
import functools
import os
import struct
import threading
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import jax

from spuvm.runtime.ring.native_sources import digest
from spuvm.runtime.settings import switch

MATMUL_TARGET = "spuvm_ring_matmul"
WIDE_TARGET = "spuvm_ring_matmul_wide"

warned = False  # whether it was said of a library that it is not used
_AES_NAMES = ("openssl", "aes", "vaes")
_RING_NAMES = ("plain", "avx2", "avx512")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The shared library with its signatures declared, or None; calls release the GIL."""
    if not switch("SPUVM_NATIVE"):
        return None
    path = _find(Path(__file__).parent)
    if path is None:
        return None
    global warned
    try:
        _check_whole(path)
        lib = _declare(ctypes.CDLL(str(path)))
        _check_sources(lib)
        return lib
    except (OSError, AttributeError) as error:  # damaged, built for another machine, or of older source
        warned = True
        text = f"spuvm runs without its native kernels, every stage by XLA: {error}"
        again = "" if "install" in text else " With a C++ compiler at hand, install spuvm again."
        warnings.warn(text + again, RuntimeWarning, stacklevel=2)
        return None


def _check_whole(path: Path) -> None:
    """OSError for a file that ends before its own headers say: the process would end where it reads what is missing."""
    with path.open("rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":  # whatever it is, the loader says so
            return
        segments, sections = struct.unpack_from("<QQ", head, 32)
        of_segment, count, of_section, section_count = struct.unpack_from("<HHHH", head, 54)
        file.seek(segments)
        table = file.read(of_segment * count)
        size = file.seek(0, os.SEEK_END)
    ends = [segments + of_segment * count, sections + of_section * section_count]
    if len(table) == of_segment * count:
        fields = (struct.unpack_from("<QQQQ", table, at + 8) for at in range(0, len(table), of_segment))
        ends += [offset + stored for offset, _, _, stored in fields]
    if size < max(ends):
        raise OSError(f"{path} has {size:,} bytes of {max(ends):,}: it is cut off.")


def _check_sources(lib: ctypes.CDLL) -> None:
    """OSError for a library of other sources than lie here: what is given to it may have another form."""
    if (here := digest()) is None:
        return
    built = getattr(lib, "spuvm_sources", None)
    if built is not None:
        built.restype = ctypes.c_char_p
    if built is None or built().decode() != here:
        raise OSError(
            "the library was built from other sources than those here. Build it anew: "
            "`SPUVM_BUILD_NATIVE=require python setup.py build_ext --inplace` (or install the package again)."
        )


def _find(folder: Path) -> Path | None:
    candidates = (folder / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.exists()), None)


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    address, u64 = ctypes.c_void_p, ctypes.c_uint64
    lib.spuvm_aes_level.argtypes = ()
    lib.spuvm_aes_expand.argtypes = (ctypes.c_char_p, address)
    lib.spuvm_aes_expand.restype = None
    lib.spuvm_aes_ctr.argtypes = (ctypes.c_int, address, address, u64, u64, u64)
    lib.spuvm_aes_ctr.restype = None
    lib.spuvm_ring_level.argtypes = ()
    lib.spuvm_ring_set_level.argtypes = (ctypes.c_int,)
    getattr(lib, MATMUL_TARGET)
    return lib


def register() -> bool:
    """Gives XLA the FFI targets; whether there are any. Safe to call at every use, from any thread."""
    with _REGISTERING:
        return _registered()


_REGISTERING = threading.Lock()


@functools.cache
def _registered() -> bool:
    lib = library()
    if lib is None:
        return False
    # Without a client JAX only notes the target, and one of another FFI version then fails the client.
    jax.devices("cpu")
    try:
        for name in (MATMUL_TARGET, WIDE_TARGET):
            if hasattr(lib, name):
                jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(lib, name)), platform="cpu")
    except Exception as error:  # of jaxlib's own type
        warnings.warn(f"spuvm runs without its native matmul: {error}", RuntimeWarning, stacklevel=2)
        return False
    return True


def multiplies_words() -> bool:
    """Whether there is a native product of 128 bits that is faster than many of 64.

    A library built from older source has none.
    """
    lib = library()
    return lib is not None and register() and hasattr(lib, WIDE_TARGET) and lib.spuvm_ring_wide_pays() == 1


def features() -> str:
    """What is in use, for logs and benchmarks: `aes=vaes matmul=avx512`, or `aes=openssl matmul=xla`.

    Starts JAX's CPU client, as tracing a product does.
    """
    lib = library()
    aes = _AES_NAMES[lib.spuvm_aes_level()] if lib is not None else "openssl"
    matmul = _RING_NAMES[lib.spuvm_ring_level()] if lib is not None and register() else "xla"
    return f"aes={aes} matmul={matmul}"
