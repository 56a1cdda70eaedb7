"""Secure multi-party computation, compiled by JAX."""

from spuvm import utils as utils
from spuvm.compiler.compile import Program as Program
from spuvm.compiler.compile import load as load
from spuvm.devices import PYU as PYU
from spuvm.devices import SPU as SPU
from spuvm.devices import PYUObject as PYUObject
from spuvm.devices import init as init
from spuvm.devices import shutdown as shutdown
from spuvm.jit import jit as jit
from spuvm.jit import private as private
from spuvm.jit import public as public
from spuvm.jit import reveal as reveal
from spuvm.jit import secret as secret
from spuvm.objects import SPUObject as SPUObject
from spuvm.runtime import errors as errors
from spuvm.runtime.config import Config as Config
