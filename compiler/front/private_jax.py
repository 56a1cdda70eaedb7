"""All that is used of JAX beyond what it promises: where an equation came from.

When one of these goes with a new version, programs still compile and give the same results: errors and tables name no
line (`frames`, `attributed` fall back), and limits of special functions are those of ordinary code
(`SPECIAL_FUNCTIONS`). What to do: find the new home of `raw_frame_to_frame` and `user_context`, and of the files in
which `jax.scipy` and `jax.nn` define their functions; tests/test_trace.py and tests/test_lower.py tell whether it is
right.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax

JAX_FILES = str(Path(jax.__file__).parent) + os.sep
SPECIAL_FUNCTIONS = tuple(JAX_FILES + str(Path("_src", *path)) for path in (("scipy",), ("ops", "special.py")))


def frames(eqn: Any, body: Any = None) -> list[Any]:
    """Frames that led to an equation, from the innermost on, without JAX's own: `file_name`, `function_name`, ...

    Of an equation of `body`, a jaxpr, those within the function that it was traced from. JAX traces its own functions
    once for all calls: frames beyond them are of the first call, or of the line that this was attributed to.
    """
    try:
        from jax._src import source_info_util

        within = []
        codes, at = eqn.source_info.traceback.raw_frames()
        for code, instruction in zip(codes, at):
            if source_info_util.is_user_filename(code.co_filename):
                within.append(source_info_util.raw_frame_to_frame(code, instruction))
            if body is not None and _is_of(code, body.debug_info):
                return within
        shared = body is not None and (body.debug_info.func_filename or "").startswith(JAX_FILES)
        return [] if shared else within
    except (ImportError, AttributeError, TypeError):
        return []


def _is_of(code: Any, function: Any) -> bool:
    return bool(code.co_filename == function.func_filename and code.co_firstlineno == function.func_lineno)


def attributed(eqn: Any) -> AbstractContextManager[None]:
    """Within it, equations that are traced are attributed to the line of this one."""
    try:
        from jax._src import source_info_util

        return source_info_util.user_context(eqn.source_info.traceback)
    except (ImportError, AttributeError, TypeError):
        return nullcontext()


def in_special_function(eqn: Any) -> bool:
    """Whether JAX's own code for a special function or a distribution made an equation."""
    all_frames = getattr(eqn.source_info.traceback, "frames", ())
    of_jax = takewhile(lambda frame: frame.file_name.startswith(JAX_FILES), all_frames)  # from the innermost on
    return any(frame.file_name.startswith(SPECIAL_FUNCTIONS) for frame in of_jax)
