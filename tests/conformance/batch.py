"""Running the table: many combinations in one program, on the real protocols, against JAX in the clear."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from conformance.table import Case, Shape
from spuvm.compiler.compile import Program
from spuvm.compiler.front.trace import reveal, trace
from spuvm.compiler.ir import text
from spuvm.compiler.ir.module import Visibility
from spuvm.compiler.lower.lower import lower
from spuvm.compiler.passes.choose import choose_functions
from spuvm.compiler.passes.pipeline import run_passes
from spuvm.runtime.config import DEFAULT_FRACTION_BITS, RING_BITS, Config
from spuvm.runtime.errors import CompileError, EncodingError
from spuvm.vm import simulator

# Who knows an operand: everybody, the first party, the second, nobody.
WHO: dict[str, Visibility] = {"public": "public", "private": 0, "another's": 1, "secret": "secret"}
Pattern = tuple[str, ...]
KEPT = 2048  # operands and results in the clear that a process keeps


@dataclass(frozen=True)
class Combination:
    """One of the table's: a case, a dtype, shapes, and who knows which operand."""

    case: Case
    dtype: str
    shapes: tuple[Shape, ...]
    pattern: Pattern

    def __str__(self) -> str:
        shown = [
            f"{o.dtype or self.dtype}{list(s)} {w}" for o, s, w in zip(self.case.operands, self.shapes, self.pattern)
        ]
        note = f" ({self.case.note})" if self.case.note else ""
        return f"{self.case.primitive}{note}({', '.join(shown)})"


@dataclass(frozen=True)
class Outcome:
    """What became of a combination; `error` in words if it failed, `reason` if it is refused; its results' digest."""

    combination: Combination
    error: str | None = None
    reason: str | None = None
    bits: str = ""


def patterns(n: int) -> list[Pattern]:
    """All operands alike, one known while the others are secret, and the mixtures of two owners."""
    if n == 1:
        return [("secret",), ("private",), ("public",)]
    found: list[Pattern] = [("secret",) * n, ("private",) * n, ("public",) * n]
    for i, who in itertools.product(range(n), ("public", "private")):
        found.append((*("secret",) * i, who, *("secret",) * (n - i - 1)))
    found += [("private", *("another's",) * (n - 1)), ("private", *("public",) * (n - 1))]
    return list(dict.fromkeys(found))


def combinations(cases: Iterable[Case]) -> Iterator[Combination]:
    for case in cases:
        for dtype, shapes, pattern in itertools.product(case.dtypes, case.shapes, patterns(len(case.operands))):
            yield Combination(case, dtype, shapes, pattern)


def covering(cases: Iterable[Case], seed: int = 0) -> Iterator[Combination]:
    """A sample: of each case every dtype, every shape and every pattern at least once."""
    rng = np.random.default_rng(seed)
    for case in cases:
        found = patterns(len(case.operands))
        axes: list[Sequence[Any]] = [case.dtypes, case.shapes, found]
        count = max(map(len, axes))
        columns = [[axis[i % len(axis)] for i in rng.permutation(count)] for axis in axes]
        for dtype, shapes, pattern in zip(*columns):
            yield Combination(case, dtype, shapes, pattern)


def configurations() -> list[Config]:
    """Every protocol and ring that it has; semi2k of two and of three parties; one with exact truncations."""
    machines = (("aby3", 3), ("semi2k", 2), ("semi2k", 3), ("ref2k", 3), ("rep4", 4))
    of_words = (("semi2k_ot", 2), ("aby3_malicious", 3))
    exact = Config(parties=tuple(f"party{i}" for i in range(3)), truncation="exact")
    return [
        exact,
        *(
            Config(protocol, ring, DEFAULT_FRACTION_BITS[ring], tuple(f"party{i}" for i in range(n)))
            for ring in RING_BITS
            for protocol, n in (machines if ring == 128 else machines + of_words)
        ),
    ]


def name_of(config: Config) -> str:
    parties = f" of {config.world_size}" if config.protocol == "semi2k" else ""
    return f"{config.protocol}{parties}/{config.ring_bits}{' exact' if config.exact else ''}"


# running ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=KEPT)
def operands(c: Combination, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [o.draw(rng, s, o.dtype or c.dtype) for o, s in zip(c.case.operands, c.shapes)]


@lru_cache(maxsize=KEPT)
def truth(c: Combination, seed: int) -> list[Any]:
    """The results of JAX in the clear, the same for every configuration: floats in float64."""
    wide = [jnp.asarray(x, np.float64 if _is_float(x) else None) for x in operands(c, seed)]
    return [np.asarray(x) for x in jax.tree.leaves(c.case.function(*wide))]


def _is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def refusal(c: Combination, config: Config) -> str | None:
    """Why a combination does not compile, without its place; None if it does."""
    try:
        choose_functions(lower(trace(c.case.function, operands(c, 0)), [WHO[w] for w in c.pattern], config))
    except (CompileError, EncodingError) as e:
        return re.sub(r"^\S+:\d+: ", "", str(e))
    return None


def run(batch: Sequence[Combination], config: Config, seed: int = 1) -> list[Outcome]:
    """Outcomes of a batch, in its order. What does not compile is left out of the program."""
    with jax.enable_x64(True):
        args = [operands(c, seed + i) for i, c in enumerate(batch)]
        reasons: list[str | None] = [None] * len(batch)
        try:
            program = _program(batch, args, config)
        except (CompileError, EncodingError):
            reasons = [refusal(c, config) for c in batch]
            kept = [i for i, r in enumerate(reasons) if r is None]
            program = _program([batch[i] for i in kept], [args[i] for i in kept], config)
        results = _results(program, [a for a, r in zip(args, reasons) if r is None])
        outcomes = []
        for i, (c, a, reason) in enumerate(zip(batch, args, reasons)):
            if reason is not None:
                outcomes.append(Outcome(c, reason=reason))
                continue
            want = truth(c, seed + i)
            got = [next(results) for _ in want]
            outcomes.append(Outcome(c, difference(c, a, got, want, config), bits=_digest(got)))
        assert next(results, None) is None
        return outcomes


def _digest(results: Sequence[Any]) -> str:
    """Of bits, and of what they are."""
    arrays = [np.asarray(x) for x in results]
    return sha256(b"".join(f"{x.dtype}{x.shape}".encode() + x.tobytes() for x in arrays)).hexdigest()


def forget() -> None:
    """The last program: it keeps to what it was prepared for."""
    _PROGRAMS.clear()


def _program(batch: Sequence[Combination], args: Sequence[Sequence[Any]], config: Config) -> Program:
    def whole(*groups: Any) -> Any:
        return [reveal(c.case.function(*group)) for c, group in zip(batch, groups)]

    owners = [WHO[w] for c in batch for w in c.pattern]
    traced = trace(whole, [tuple(a) for a in args])
    module = lower(traced, owners, config)
    key = re.sub("float64|float16|bfloat16", "float32", text.to_text(module))
    if key not in _PROGRAMS:
        _PROGRAMS.clear()
        _PROGRAMS[key] = Program(run_passes(module))
        return _PROGRAMS[key]
    found = _PROGRAMS[key]
    program = Program(replace(found.module, input_dtypes=module.input_dtypes, output_dtypes=module.output_dtypes))
    program._parties = found._parties
    return program


# The last program: floats of all widths make the same one, so that only the first is compiled.
_PROGRAMS: dict[str, Program] = {}


def _results(program: Program, args: Sequence[Sequence[Any]]) -> Iterator[Any]:
    if not args:
        return iter(())
    objects = simulator(program.config).run(program, [x for group in args for x in group])
    return iter([o.known_value() for o in objects])


def difference(
    c: Combination, args: Sequence[Any], got: Sequence[Any], want: Sequence[Any], config: Config
) -> str | None:
    """In words, where results differ by more than is stated."""
    for i, (mine, truth_) in enumerate(zip(got, want)):
        mine = np.asarray(mine)
        if mine.shape != truth_.shape:
            return f"result {i} has shape {mine.shape}, not {truth_.shape}"
        if not _is_float(truth_):
            if mine.dtype != truth_.dtype:
                return f"result {i} is {mine.dtype}, not {truth_.dtype}"
            wrong = mine != truth_
        else:
            info = jnp.finfo(mine.dtype)  # type: ignore[no-untyped-call]
            exponent = np.asarray(args[-1], np.float64) if c.case.stated.per_exponent else 0.0
            stated = c.case.stated.in_ring(config.ring_bits, config.fxp_fraction_bits)
            allowed = stated.allowed(truth_, 2.0**-config.fxp_fraction_bits, exponent)
            rounding = float(info.eps) * np.abs(truth_) + float(info.smallest_subnormal)
            wrong = ~(np.abs(mine.astype(np.float64) - truth_) <= allowed + rounding)
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            return (
                f"result {i}{list(at)} is {mine[at]!s}, not {truth_[at]!s}; {int(wrong.sum())} of {wrong.size} differ"
            )
    return None


def batches(found: Iterable[Combination], size: int = 48) -> Iterator[list[Combination]]:
    """Combinations of one case and dtype at a time: a program's operations are alike, and share their kernels."""
    for _, group in itertools.groupby(found, key=lambda c: (id(c.case), c.dtype)):
        members = list(group)
        for i in range(0, len(members), size):
            yield members[i : i + size]
