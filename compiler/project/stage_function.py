"""What a stage computes: a function of arrays, as XLA compiles it, and equations, as the engine's code is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import jax
from jax.extend import core as jex

Function = Callable[..., Sequence[Any]]


@dataclass(slots=True, eq=False)
class Known:
    """A traced constant, known to all."""

    value: Any


@dataclass(slots=True, eq=False)
class Equation:
    """`ins` are value numbers or constants, `apply` gives the values of `outs`.

    `primitive` and `params` say what it applies, if that is a primitive; else `apply` is traced for it.
    """

    apply: Function
    ins: tuple[int | Known, ...]
    outs: tuple[int, ...]
    primitive: Any = None
    params: Any = None
    values: tuple[int, ...] = field(init=False)  # those of `ins` that are no constants

    def __post_init__(self) -> None:
        self.values = tuple(v for v in self.ins if type(v) is int)


class Variable(NamedTuple):
    """A value of a stage, where a jaxpr has its variables."""

    number: int
    aval: Any

    def __hash__(self) -> int:
        return self.number


class Step(NamedTuple):
    """An equation of a stage, where a jaxpr has its equations."""

    primitive: Any
    params: Any
    invars: list[Any]
    outvars: list[Variable]


class Equations(NamedTuple):
    """A stage in the place of a jaxpr: straight-line, without constants of its own."""

    invars: list[Variable]
    eqns: list[Step]
    outvars: list[Variable]
    constvars: tuple[()] = ()


class _Traced(NamedTuple):
    name: str = "closed_call"


@lru_cache(maxsize=1 << 10)
def _traced(function: Function, avals: tuple[jax.ShapeDtypeStruct, ...]) -> Any:
    return jax.make_jaxpr(function)(*avals)


@dataclass(frozen=True, eq=False)
class StageFunction:
    """`steps`: equations, and what each reads; `names` are the arguments, `avals` the types of all values by number."""

    names: Sequence[int]
    steps: Sequence[tuple[Equation, Sequence[int | Known]]]
    outputs: Sequence[int]
    avals: Sequence[jax.ShapeDtypeStruct]

    def __call__(self, *arrays: Any) -> Sequence[Any]:
        return self.evaluated(lambda equation, arguments: equation.apply(*arguments), arrays)

    def evaluated(
        self, apply: Callable[[Equation, Sequence[Any]], Sequence[Any]], arrays: Sequence[Any]
    ) -> Sequence[Any]:
        """The outputs, `apply` giving the values of each equation."""
        env = dict(zip(self.names, arrays))
        for equation, reads in self.steps:
            arguments = [v.value if isinstance(v, Known) else env[v] for v in reads]
            env.update(zip(equation.outs, apply(equation, arguments)))
        return [env[v] for v in self.outputs]

    def equations(self) -> Equations:
        steps = [self._step(equation, reads) for equation, reads in self.steps]
        return Equations(self._variables(self.names), steps, self._variables(self.outputs))

    def _variables(self, numbers: Sequence[int]) -> list[Variable]:
        return [Variable(n, self.avals[n]) for n in numbers]

    def _step(self, equation: Equation, reads: Sequence[int | Known]) -> Step:
        atoms = [Variable(v, self.avals[v]) if isinstance(v, int) else _literal(v.value) for v in reads]
        primitive, params = equation.primitive, equation.params
        if primitive is None:
            primitive, params = _Traced(), {"jaxpr": _traced(equation.apply, tuple(a.aval for a in atoms))}
        return Step(primitive, params, atoms, self._variables(equation.outs))


def _literal(value: Any) -> Any:
    return jex.Literal(value, jax.typeof(value))


@dataclass(frozen=True, eq=False)
class Later:
    """A stage's function that traces the kernel when (and only if) it is called or its equations are asked for."""

    made: Callable[[], StageFunction]

    def __call__(self, *arrays: Any) -> Sequence[Any]:
        return self.made()(*arrays)

    def equations(self) -> Equations:
        return self.made().equations()
