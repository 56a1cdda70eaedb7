"""Joins of two owners' own keys inside of a query (see `matching`), as they run: at owners, between, in programs.

Security: semi-honest, honest majority of three, as ABY3 has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spuvm.devices import PYU, PYUObject
from spuvm.psi.cuckoo import FUNCTIONS
from spuvm.psi.keys import Fixed, Keys
from spuvm.psi.oblivious import candidates, drawn_seeds, hashed, looked_up
from spuvm.psi.places import Held, here
from spuvm.psi.tables import Words, first_rows
from spuvm.runtime.config import Config
from spuvm.runtime.ring.encodings import encode
from spuvm.sql.columns import Array, Vec, both, converted
from spuvm.sql.matching import Key, Sides, matchings
from spuvm.sql.plan import Field, Node, Scan
from spuvm.sql.types import Type

# At the owners --------------------------------------------------------------------------------------------------


def keys_of(tree: Mapping[str, Any], keys: Sequence[Key], types: Sequence[Type], once: bool) -> Keys:
    """An owner's key columns as words; rows that are not there, or have a NULL, have none.

    Args:
        tree: of the scan, as `scanning.scanned` gives it.
        once: whether of equal keys the first alone counts.
    """
    columns: list[Fixed | Any] = []
    present = tree["there"]
    for key, type_ in zip(keys, types):
        words = tree["words"][key.field.name]
        if key.dictionary is not None:
            words = [w[words[0]] for w in tree["dictionaries"][key.dictionary]]
        with jax.enable_x64(True):
            same = converted(Vec(key.type, tuple(map(jnp.asarray, words))), type_)
            columns += [_fixed(np.asarray(w).astype(np.int64)) for w in same.words]
        valid = tree["valid"].get(key.field.name)
        present = valid if present is None else present if valid is None else present & valid
    rows = len(columns[0].words)
    out = Keys(tuple(columns), np.ones(rows, bool) if present is None else np.asarray(present))
    if not once:
        return out
    return Keys(out.columns, out.present & first_rows(out)[0])


def _fixed(numbers: np.ndarray) -> Fixed:
    return Fixed(np.stack([numbers.view(np.uint64), (numbers >> 63).view(np.uint64)], axis=1))


def words_of(tree: Mapping[str, Any], carried: Sequence[Field], rows: int, frac: int) -> Words:
    """The table's columns as they enter the selection: words, and bits, the last of which is set."""
    numbers: list[np.ndarray] = []
    bits: list[np.ndarray] = []
    for f in carried:
        words = tree["words"][f.name]
        if f.type.kind == "bool":
            bits.append(words[0])
        elif f.type.kind == "float":
            whole = encode(words[0], frac, f.name).view(np.int64)
            numbers += [whole >> frac, whole & ((1 << frac) - 1)]
        else:
            numbers += words
        if f.nullable:
            bits.append(tree["valid"][f.name])
    bits.append(np.ones(rows, bool))
    matrix = np.stack(numbers).astype(np.int64).view(np.uint64) if numbers else np.empty((0, rows), np.uint64)
    return Words(matrix, np.packbits(np.stack(bits).astype(bool), axis=0, bitorder="little"), {})


# Before the query's program -------------------------------------------------------------------------------------


def unmeasured(name: str, run: Callable[[], Any]) -> Any:
    return run()


def selected(
    root: Node,
    scans: Mapping[str, PYUObject],
    config: Config,
    measured: Callable[[str, Callable[[], Any]], Any] = unmeasured,
) -> dict[str, Any]:
    """What the program takes of each matching: the base's fingerprints, and shares of the candidates, at two parties.

    Args:
        scans: the scans' trees at their owners, by `Scan.name`.
        measured: runs each selection, by its name.
    """
    found = matchings(root)
    if not found:
        return {}
    places = here()

    def at(scan: Scan, function: Any, *args: Any) -> Held:
        tree = Held(frozenset({scan.owner}), scans[scan.name].value)
        return places.run(scan.owner, lambda t: function(t, *args), tree)

    keys: dict[str, tuple[Held, Held]] = {}
    committed: dict[str, list[Held]] = {}
    for name, s in found.items():
        keys[name] = at(s.base, keys_of, s.mine, s.types, False), at(s.table, keys_of, s.theirs, s.types, True)
        for scan, k in zip((s.base, s.table), keys[name]):
            committed.setdefault(scan.owner, []).append(k)
    seeds = drawn_seeds(places, committed)
    out = {}
    for name, s in found.items():
        looked, (mine, theirs) = s.looked(config.members), keys[name]
        looking = places.run(s.base.owner, hashed, mine, seeds)
        hashes = places.run(s.table.owner, hashed, theirs, seeds)
        words = at(s.table, words_of, s.carried, s.table.bound, config.fxp_fraction_bits)
        table = places.run(s.table.owner, looked.table, theirs, hashes, words)
        numbers, bits = measured(name, partial(candidates, places, looked, looking, table))
        known = places.run(s.base.owner, lambda h, x=looked: x.fingerprints(h).view(np.int64), looking)
        out[name] = {
            "mine": PYUObject(PYU(s.base.owner), known.value),
            "numbers": [
                PYUObject(PYU(p), None if x.value is None else x.value.view(np.int64)) for p, x in numbers.items()
            ],
            "bits": [PYUObject(PYU(p), None if x.value is None else x.value.astype(bool)) for p, x in bits.items()],
        }
    return out


def inputs(sides: Sides, members: Sequence[str]) -> tuple[Any, Any]:
    """Shapes of what `selected` gives of one, and whose they are."""
    looked = sides.looked(members)
    three = FUNCTIONS * looked.rows
    words = jax.ShapeDtypeStruct((looked.limbs + looked.numbers, three), np.dtype(np.int64))
    bits = jax.ShapeDtypeStruct((looked.bits, three), np.dtype(np.bool_))
    mine = jax.ShapeDtypeStruct((looked.limbs, looked.rows), np.dtype(np.int64))
    holders = [looked.roles.programmer, looked.roles.receiver]
    return (
        {"mine": mine, "numbers": [words, words], "bits": [bits, bits]},
        {"mine": looked.roles.programmer, "numbers": holders, "bits": holders},
    )


# In the query's program -----------------------------------------------------------------------------------------


def found_of(sides: Sides, given: Mapping[str, Any], probed: Array | None, frac: int) -> tuple[Array, dict[str, Vec]]:
    """For each row of the base whether its key is there, and the table's carried columns by name, NULL where not.

    Args:
        given: as `inputs` describes it.
        probed: which rows of the base are there.
        frac: the machine's fraction bits.
    """
    numbers, bits = given["numbers"][0] + given["numbers"][1], given["bits"][0] ^ given["bits"][1]
    limbs = given["mine"].shape[0]
    words, flags = looked_up(given["mine"], list(numbers[:limbs]), list(numbers[limbs:]), list(bits))
    more, marks = iter(words), iter(flags)
    matched = both(flags[-1], probed)
    assert matched is not None
    columns = {}
    for f in sides.carried:
        if f.type.kind == "bool":
            cells: tuple[Array, ...] = (next(marks),)
        elif f.type.kind == "float":
            cells = (next(more).astype(jnp.float64) + next(more).astype(jnp.float64) * 2.0**-frac,)
        else:
            cells = tuple(next(more) for _ in range(f.type.parts))
        columns[f.name] = Vec(f.type, cells, next(marks) if f.nullable else None)
    return matched, columns
