"""Keeping freed memory: a fresh large block costs more in page faults than the arithmetic on it.

glibc hands large freed blocks back to the operating system at once, and faults every page in
again at the next allocation. A session asks it to keep blocks up to 64 MiB, and up to 512 MiB of
freed memory at the top of the heap. `SPUVM_KEEP_MEMORY=0` leaves the allocator alone; other C
libraries are.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache

from spuvm.runtime.settings import switch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BLOCK = 64 << 20
KEPT_TOP = 512 << 20


@lru_cache(maxsize=1)
def keep_large_blocks() -> bool:
    """Ask the allocator once; whether it agreed."""
    if not switch("SPUVM_KEEP_MEMORY"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK) and mallopt(M_TRIM_THRESHOLD, KEPT_TOP))


def memory_bytes() -> int:
    """What this machine has, in bytes; a large number where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 40
