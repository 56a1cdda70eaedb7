"""A function on an SPU: called with objects of devices, which become its machine's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from spuvm.calls import Jitted
from spuvm.compiler.compile import Program
from spuvm.compiler.cost import Cost
from spuvm.compiler.passes.headroom import Scales
from spuvm.compiler.passes.ranges import Ranges
from spuvm.objects import Remote
from spuvm.runtime.errors import InputError
from spuvm.runtime.machine.session import abort_on_error


class Placed:
    """What `spu(fn)` is. `arguments` makes of a pytree with objects of parties one of arrays that are their owners'."""

    def __init__(self, function: Jitted, arguments: Callable[[Any], Any]) -> None:
        self.function, self._arguments = function, arguments

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with abort_on_error(self.function.vm.session.link):
            args, kwargs = self._arguments((args, kwargs))
            return self.function(*args, **kwargs)

    def compile(self, *args: Any, **kwargs: Any) -> Program:
        args, kwargs = self._arguments((args, kwargs))
        return self.function.compile(*args, **kwargs)

    def cost(self, *args: Any, **kwargs: Any) -> Cost:
        return self.compile(*args, **kwargs).cost

    def scales(self, *args: Any, **kwargs: Any) -> Scales:
        args, kwargs = self._arguments((args, kwargs))
        return self.function.scales(*args, **kwargs)

    def calibrate(self, *sample: Any, **kwargs: Any) -> Placed:
        """Scales fitted to public or synthetic arrays that every party's script has, see `Jitted.calibrate`.

        Raises InputError for objects of devices: the ranges of what a party has would be known to all.
        """
        leaves = jax.tree.leaves((sample, kwargs), is_leaf=lambda x: isinstance(x, Remote))
        if any(isinstance(leaf, Remote) for leaf in leaves):
            raise InputError(
                "`calibrate` computes in the clear: give it public or synthetic arrays that every party's script has, "
                "not objects of devices."
            )
        return Placed(self.function.calibrate(*sample, **kwargs), self._arguments)

    @property
    def ranges(self) -> Ranges | None:
        return self.function.ranges

    def __repr__(self) -> str:
        return repr(self.function)
