"""LLVM through llvmlite, which may not be there: text to object code, and object code to functions that run.

Object code belongs to one version of llvmlite and LLVM, and to this processor; whoever keeps it notes `version`.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from spuvm.compiler.fuse.llvm_text import function
from spuvm.compiler.fuse.passes import best
from spuvm.compiler.fuse.values import Lacking, operations
from spuvm.runtime.engine.code import Code, Loop
from spuvm.runtime.engine.interpreter import Fused

WORTH = 4  # operations of a loop below which memory is the limit, however it is run


@cache
def binding() -> Any:
    """`llvmlite.binding`, ready to make code for this processor; None, said once, if it is not there."""
    try:
        found = importlib.import_module("llvmlite.binding")
        found.initialize_native_target()
        found.initialize_native_asmprinter()
    except Exception as error:  # not installed, or of a form that cannot be used
        logging.getLogger(__name__).info("stages are not compiled by LLVM (%s): install spuvm[llvm]", error)
        return None
    return found


@cache
def version() -> str:
    """What object code depends on, in 16 hexadecimal digits."""
    llvm = binding()
    package = importlib.import_module("llvmlite").__version__
    about = (package, llvm.llvm_version_info, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def text_of(code: Code) -> tuple[str, list[Fused], list[str]]:
    """LLVM's text of the code's loops, what they need to run (functions not yet placed), and why others have none."""
    texts, made, lacking = [], [], []
    for number, segment in enumerate(code.segments):
        if not isinstance(segment, Loop) or len(segment.code) < WORTH:
            continue
        try:
            passes = best(operations(segment))
            texts.append(function(code, passes, _name(number)))
            made.append(Fused(number, 0, passes.block, passes.scratch))
        except Lacking as lack:
            lacking.append(str(lack))
    return "\n".join(texts), made, lacking


def _name(segment: int) -> str:
    return f"loop{segment}"


def object_code(text: str) -> bytes:
    """The text, compiled. What LLVM's middle passes would improve is in the bytecode already."""
    llvm = binding()
    module = llvm.parse_assembly(text)
    module.verify()
    made: bytes = _machine().emit_object(module)
    return made


def assembly(text: str) -> str:
    """The processor's instructions, for tests and for who wants to see them."""
    made: str = _machine().emit_assembly(binding().parse_assembly(text))
    return made


def _machine() -> Any:
    llvm = binding()
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=2, reloc="static", jit=True
    )


def placed(content: bytes, made: Sequence[Fused]) -> tuple[Any, list[Fused]]:
    """The functions of object code in memory, where they stay while the first result lives."""
    llvm = binding()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(content))
    engine.finalize_object()
    return engine, [f._replace(function=engine.get_function_address(_name(f.segment))) for f in made]
