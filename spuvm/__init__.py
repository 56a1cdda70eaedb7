"""Secure multi-party computation, compiled by JAX."""

import importlib
from typing import TYPE_CHECKING

from spuvm import data as data
from spuvm import dp as dp
from spuvm import psi as psi
from spuvm import random as random
from spuvm import utils as utils
from spuvm.check import check as check
from spuvm.compiler.compile import Program as Program
from spuvm.compiler.compile import load as load
from spuvm.context import init as init
from spuvm.context import shutdown as shutdown
from spuvm.devices import PYU as PYU
from spuvm.devices import SPU as SPU
from spuvm.devices import PYUObject as PYUObject
from spuvm.he import HEU as HEU
from spuvm.he import HEUObject as HEUObject
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
from spuvm.shares import load_shares as load_shares
from spuvm.shares import save_shares as save_shares
from spuvm.streaming.stream import Stream as Stream
from spuvm.streaming.stream import stream as stream

if TYPE_CHECKING:
    from spuvm.flow import Flow as Flow
    from spuvm.flow import component as component

LATER = {  # loaded when first used: they need packages of their own, or much of this one
    "fed": "spuvm.fed",
    "sql": "spuvm.sql",
    "flow": "spuvm.flow",
    "Flow": "spuvm.flow.graph:Flow",
    "component": "spuvm.flow.components:component",
}


def __getattr__(name: str) -> object:
    """What is in `LATER`."""
    if name not in LATER:
        raise AttributeError(f"module `spuvm` has no attribute `{name}`")
    module, _, attribute = LATER[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
