"""Secure multi-party computation, compiled by JAX.

Each public name is loaded when it is first used: most commands need a few, and those that need no JAX start at once.
"""

from typing import TYPE_CHECKING

from spuvm.runtime.later import later

if TYPE_CHECKING:
    from spuvm import data as data
    from spuvm import dp as dp
    from spuvm import fed as fed
    from spuvm import flow as flow
    from spuvm import psi as psi
    from spuvm import random as random
    from spuvm import sql as sql
    from spuvm import utils as utils
    from spuvm.checking import check as check
    from spuvm.compiler.compile import Program as Program
    from spuvm.compiler.compile import load as load
    from spuvm.context import init as init
    from spuvm.context import shutdown as shutdown
    from spuvm.devices import PYU as PYU
    from spuvm.devices import SPU as SPU
    from spuvm.devices import PYUObject as PYUObject
    from spuvm.flow import Flow as Flow
    from spuvm.flow import component as component
    from spuvm.he import HEU as HEU
    from spuvm.he import HEUObject as HEUObject
    from spuvm.marking import bound as bound
    from spuvm.marking import jit as jit
    from spuvm.marking import masked as masked
    from spuvm.marking import private as private
    from spuvm.marking import public as public
    from spuvm.marking import reveal as reveal
    from spuvm.marking import secret as secret
    from spuvm.objects import SPUObject as SPUObject
    from spuvm.resumable import resumable as resumable
    from spuvm.runtime import errors as errors
    from spuvm.runtime.config import Config as Config
    from spuvm.shares import load_shares as load_shares
    from spuvm.shares import save_shares as save_shares
    from spuvm.streaming.stream import Stream as Stream
    from spuvm.streaming.stream import stream as stream

NAMES = {
    "bound": "spuvm.marking:bound",
    "check": "spuvm.checking:check",
    "component": "spuvm.flow:component",
    "Config": "spuvm.runtime.config:Config",
    "data": "spuvm.data",
    "dp": "spuvm.dp",
    "errors": "spuvm.runtime.errors",
    "fed": "spuvm.fed",
    "Flow": "spuvm.flow:Flow",
    "flow": "spuvm.flow",
    "HEU": "spuvm.he:HEU",
    "HEUObject": "spuvm.he:HEUObject",
    "init": "spuvm.context:init",
    "jit": "spuvm.marking:jit",
    "load": "spuvm.compiler.compile:load",
    "load_shares": "spuvm.shares:load_shares",
    "masked": "spuvm.marking:masked",
    "private": "spuvm.marking:private",
    "Program": "spuvm.compiler.compile:Program",
    "psi": "spuvm.psi",
    "public": "spuvm.marking:public",
    "PYU": "spuvm.devices:PYU",
    "PYUObject": "spuvm.devices:PYUObject",
    "random": "spuvm.random",
    "resumable": "spuvm.resumable:resumable",
    "reveal": "spuvm.marking:reveal",
    "save_shares": "spuvm.shares:save_shares",
    "secret": "spuvm.marking:secret",
    "shutdown": "spuvm.context:shutdown",
    "SPU": "spuvm.devices:SPU",
    "SPUObject": "spuvm.objects:SPUObject",
    "sql": "spuvm.sql",
    "Stream": "spuvm.streaming.stream:Stream",
    "stream": "spuvm.streaming.stream:stream",
    "utils": "spuvm.utils",
}

__getattr__, __dir__ = later(__name__, NAMES)
