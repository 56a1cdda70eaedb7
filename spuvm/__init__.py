"""Secure multi-party computation, compiled by JAX."""

import importlib
from typing import TYPE_CHECKING

from spuvm import random as random
from spuvm import utils as utils
from spuvm.compiler.compile import Program as Program
from spuvm.compiler.compile import load as load
from spuvm.context import init as init
from spuvm.context import shutdown as shutdown
from spuvm.devices import PYU as PYU
from spuvm.devices import SPU as SPU
from spuvm.devices import PYUObject as PYUObject
from spuvm.jit import bound as bound
from spuvm.jit import jit as jit
from spuvm.jit import masked as masked
from spuvm.jit import private as private
from spuvm.jit import public as public
from spuvm.jit import reveal as reveal
from spuvm.jit import secret as secret
from spuvm.objects import SPUObject as SPUObject
from spuvm.runtime import errors as errors
from spuvm.runtime.config import Config as Config

if TYPE_CHECKING:
    from spuvm import data as data
    from spuvm import dp as dp
    from spuvm import psi as psi
    from spuvm.checking import check as check
    from spuvm.flow import Flow as Flow
    from spuvm.flow import component as component
    from spuvm.he import HEU as HEU
    from spuvm.he import HEUObject as HEUObject
    from spuvm.resumable import resumable as resumable
    from spuvm.shares import load_shares as load_shares
    from spuvm.shares import save_shares as save_shares
    from spuvm.streaming.stream import Stream as Stream
    from spuvm.streaming.stream import stream as stream

LATER = {  # loaded when first used: every party's process would wait for them, and most use few
    "check": "spuvm.checking:check",
    "component": "spuvm.flow.components:component",
    "data": "spuvm.data",
    "dp": "spuvm.dp",
    "fed": "spuvm.fed",
    "flow": "spuvm.flow",
    "Flow": "spuvm.flow.graph:Flow",
    "HEU": "spuvm.he:HEU",
    "HEUObject": "spuvm.he:HEUObject",
    "load_shares": "spuvm.shares:load_shares",
    "psi": "spuvm.psi",
    "resumable": "spuvm.resumable:resumable",
    "save_shares": "spuvm.shares:save_shares",
    "sql": "spuvm.sql",
    "Stream": "spuvm.streaming.stream:Stream",
    "stream": "spuvm.streaming.stream:stream",
}


def __getattr__(name: str) -> object:
    """What is in `LATER`."""
    if name not in LATER:
        raise AttributeError(f"module `spuvm` has no attribute `{name}`")
    module, _, attribute = LATER[name].partition(":")
    found = importlib.import_module(module)
    globals()[name] = getattr(found, attribute) if attribute else found
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
