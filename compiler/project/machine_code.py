"""Machine code of stages, made by LLVM once and kept on disk; runs where the bytecode ran, with the same bits."""

from __future__ import annotations

import pickle
from collections import Counter
from functools import lru_cache

from spuvm.compiler.cache import disk
from spuvm.compiler.fuse import llvm
from spuvm.runtime.engine.code import Code
from spuvm.runtime.engine.interpreter import Fused, Interpreted

SUFFIX = ".machine"
compiled_count = 0  # how many stages this process compiled
left_to_interpreter: Counter[str] = Counter()  # what machine code lacks, and for how many loops of this process

# llvm.version(), the code it is of, its loops, object code, what machine code lacks for the other loops
Entry = tuple[str, str, tuple[Fused, ...], bytes, tuple[str, ...]]


@lru_cache(maxsize=4096)
def on_disk(name: str) -> bool:
    """Whether the code `name` had machine code when this was first asked."""
    return disk.there(name + SUFFIX)


def machine_code(name: str, code: Code) -> Interpreted | None:
    """The code with its loops compiled; None without llvmlite, or if there is no loop that gains by it."""
    if not code.scales or llvm.binding() is None:
        return None
    _, _, made, content, lacking = _stored(name, code) or _compiled(name, code)
    left_to_interpreter.update(lacking)
    if not made:
        return None
    keep, placed = llvm.placed(content, made)
    return Interpreted(code, placed, keep)


def _compiled(name: str, code: Code) -> Entry:
    global compiled_count
    text, made, lacking = llvm.text_of(code)
    content = llvm.object_code(text) if made else b""
    compiled_count += bool(made)
    entry = (llvm.version(), disk.digest_of(str(code)), tuple(made), content, tuple(lacking))
    disk.write(name + SUFFIX, pickle.dumps(entry, pickle.HIGHEST_PROTOCOL))
    return entry


def _stored(name: str, code: Code) -> Entry | None:
    """What is on disk, if it is whole, of this code, and for this processor and LLVM."""
    content = disk.read(name + SUFFIX)
    if content is None:
        return None
    try:  # the folder is this user's alone, see `disk`
        entry: Entry = pickle.loads(content)
        same = entry[:2] == (llvm.version(), disk.digest_of(str(code)))
    except Exception:  # whatever is wrong with an entry, making it anew puts it right
        return None
    return entry if same else None
