"""A party's ledger of what was spent on a data set: on disk before anything is revealed, and never overspent.

    budget = spu.dp.Budget(epsilon=3, delta=1e-6, unit="patient_id", contributions=2, path="patients.budget")
    report = budget.reveal(f, table)          # traces f, spends what its mechanisms cost, runs it, reveals

Every use is one line in a SQLite file, written in a transaction that refuses what would overspend, also with several
processes at once. Entries are chained by hashes, and the newest one is kept apart (`SPUVM_STATE_DIR`, or the user's
state folder), on disk before the ledger itself: a ledger that was edited, cut or restored from a backup is refused, and
a use that was interrupted half-way counts as spent.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spuvm.context import abort_everyone_on_error, current
from spuvm.dp import marks
from spuvm.dp.proving import LARGER, PROVED, Finding, check, private
from spuvm.dp.spending import DELTA, Spent, group_contributions, is_number, spending, total
from spuvm.marking import jit
from spuvm.marking import reveal as show
from spuvm.runtime.errors import DataError, InputError
from spuvm.runtime.locks import limit_seconds

START = "0" * 64
OF_A_PLACE = "place "
IDENTITY = re.compile(f"({OF_A_PLACE})?[0-9a-f]{{32}}")
INSERT = "insert into uses values (?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Use:
    """One entry: what it was for, and the mechanisms that it spent."""

    number: int
    time: float
    label: str
    spent: tuple[Spent, ...]


class Budget:
    """At most (epsilon, delta) for a data set, of tables that differ by all rows of one unit.

    Args:
        epsilon, delta: what may be spent in all.
        unit: what is protected: the column whose values name it, for people who read the ledger.
        contributions: how many rows one unit has at most; every mechanism costs so many times as much.
        path: the ledger, made if it is not there. Its own epsilon, delta, unit and contributions must be these.

    Raises:
        InputError: for values that are no budget, or a ledger with another.
        DataError: for a ledger that was changed.
    """

    def __init__(
        self, epsilon: float, delta: float = 0.0, unit: str = "row", contributions: int = 1, *, path: str | Path
    ) -> None:
        if not (is_number(epsilon) and epsilon > 0) or not (is_number(delta) and 0 <= delta < 1):
            raise InputError(
                f"a budget has an epsilon above 0 and a delta from 0 to below 1, got {epsilon!r} and {delta!r}."
            )
        if not isinstance(unit, str):
            raise InputError(f"`unit` must be a text, the column whose values name it, got {unit!r}.")
        if isinstance(contributions, bool) or not isinstance(contributions, int) or contributions < 1:
            raise InputError(f"`contributions` must be a whole number, 1 or more, got {contributions!r}.")
        self.epsilon, self.delta, self.unit, self.contributions = float(epsilon), float(delta), unit, contributions
        self.path = Path(path).resolve()
        self._terms = json.dumps([self.epsilon, self.delta, unit, contributions])
        self._identity, self._start = "", START
        with self._transaction() as db:
            self._open(db)

    @classmethod
    def open(cls, path: str | Path) -> Budget:
        """The budget of a ledger that is there; InputError if there is none, DataError if it is no ledger."""
        if not Path(path).is_file():
            raise InputError(f"there is no ledger {path}: `spu.dp.Budget(epsilon=..., path=...)` makes one.")
        try:
            with closing(sqlite3.connect(Path(path).absolute(), timeout=limit_seconds())) as db:
                ((text,),) = db.execute("select text from terms").fetchall()
            epsilon, delta, unit, contributions = json.loads(text)
        except (sqlite3.Error, ValueError, TypeError):
            raise DataError(f"{path} is no ledger of a budget, or is damaged.") from None
        return cls(epsilon, delta, unit, contributions, path=path)

    # the ledger ---------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            new = not self.path.exists()
            db = sqlite3.connect(self.path, isolation_level=None, timeout=limit_seconds())
            if new:
                self.path.chmod(0o600)
            db.execute("pragma synchronous=full")
            db.execute("begin immediate")
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"the ledger {self.path} cannot be opened: {error}.") from None
        try:
            yield db
            db.execute("commit")
        except sqlite3.DatabaseError as error:
            raise DataError(f"the ledger {self.path} is damaged or cannot be written: {error}.") from None
        finally:
            db.close()

    def _open(self, db: sqlite3.Connection) -> None:
        tables = "create table if not exists"
        db.execute(f"{tables} terms (text text not null)")
        db.execute(f"{tables} uses (number integer primary key, time real, label text, spent text, hash text)")
        terms = [row[0] for row in db.execute("select text from terms")]
        here = marks.known_at(self.path)
        if not terms:
            if marks.newest(here or marks.at_path(self.path))[0]:
                raise DataError(f"the ledger {self.path} was taken away or emptied: put back the newest one.")
            self._identity = here = secrets.token_hex(16)
            self._start = _hash(here)
            marks.settle(self.path, here)
            _name(db, here)
            db.execute("insert into terms values (?)", (self._terms,))
        elif terms != [self._terms]:
            raise InputError(f"{self.path} is the ledger of another budget: {terms[0]}, not {self._terms}.")
        else:
            self._identity, self._start = _identity(db, self.path)
        if here not in (None, self._identity):
            raise DataError(f"another ledger lies at {self.path} than before: put back the one that was there.")
        self._uses(db)
        if here is None:
            marks.settle(self.path, self._identity)

    def _uses(self, db: sqlite3.Connection) -> tuple[list[Use], str]:
        """All entries and the last hash; DataError if they are not what was written."""
        uses, head, known = _chain(db, self._start, self._terms, self.path)
        count, entry, done = marks.newest(self._identity)
        if not done and count == len(uses) + 1 and entry[-1] == _hash(head, self._terms, *entry[:-1]):
            db.execute(INSERT, entry)  # its writer was interrupted, and may have gone on to reveal
            uses, head, known = _chain(db, self._start, self._terms, self.path)
        if count > len(uses) or (count and known[count - 1] != entry[-1]):
            raise DataError(
                f"the ledger {self.path} has {len(uses)} entries, and there were {count}: it was cut or restored, or "
                "is a copy of one that was used since."
            )
        return uses, head

    # using it -----------------------------------------------------------------------------------------

    @property
    def uses(self) -> list[Use]:
        with self._transaction() as db:
            return self._uses(db)[0]

    @property
    def spent(self) -> float:
        """The epsilon that all uses together have cost, at the budget's delta."""
        return self.spent_in(self.uses)

    def spent_in(self, uses: Sequence[Use]) -> float:
        return self._total([s for use in uses for s in use.spent])

    @property
    def left(self) -> float:
        return max(0.0, self.epsilon - self.spent)

    def _total(self, spent: Sequence[Spent]) -> float:
        return total([self._of_a_unit(s) for s in spent], self.delta)

    def _of_a_unit(self, s: Spent) -> Spent:
        """Of all rows of one unit. Several are in a sample more often than one: that is accounted without sampling."""
        if self.contributions == 1 or s.mechanism == DELTA:
            return s
        return Spent(s.mechanism, s.ratio / self.contributions, s.times)

    def allows(self, spent: Sequence[Spent]) -> None:
        """InputError if so much could not be spent now; nothing is written."""
        self._check(self.uses, spent)

    def _check(self, uses: Sequence[Use], spent: Sequence[Spent]) -> float:
        """The epsilon after spending this, too; InputError if that is more than there is."""
        before = self.spent_in(uses)
        after = self._total([s for use in uses for s in use.spent] + list(spent))
        if after > self.epsilon * (1 + 1e-12):
            raise InputError(
                f"this would spend epsilon {after:.6g} in all of {self.epsilon:g} (delta {self.delta:g}); "
                f"{before:.6g} is spent in {len(uses)} uses: ask for less, or with more noise."
            )
        return after

    def spend(self, spent: Sequence[Spent], label: str = "") -> float:
        """Write down what is about to be revealed; the epsilon that is left. Refuses what is more than there is.

        Raises InputError if it would overspend, or if there is no noise at all.
        """
        if not spent:
            raise InputError("the function has no mechanism: what it reveals would not be private at all.")
        label = _legible(label)
        with self._transaction() as db, marks.alone(self._identity):
            uses, head = self._uses(db)
            after = self._check(uses, spent)
            body = json.dumps([[s.mechanism, float(s.ratio), s.times, float(s.sampling)] for s in spent])
            number, now = len(uses) + 1, time.time()
            entry = [number, now, label, body, _hash(head, self._terms, number, now, label, body)]
            # before the ledger: a crash between the two is made good by who opens it next
            marks.expect(self._identity, entry, False)
            db.execute(INSERT, entry)
        with self._transaction(), marks.alone(self._identity):
            if marks.newest(self._identity)[1] == entry:
                marks.expect(self._identity, entry, True)
        return max(0.0, self.epsilon - after)

    def reveal(
        self, function: Callable[..., Any], *args: Any, label: str = "", run: Callable[..., Any] | None = None
    ) -> Any:
        """Spend what the function's mechanisms cost, run it, and reveal its result.

        `run` runs it: a device, or `spu.jit` (the default). Arguments are what that takes. In a networked run every
        party has a ledger of its own, and one that refuses stops all before anything is shown.
        """
        with abort_everyone_on_error() if current() else nullcontext():
            whole = private(function)
            spent = spending(whole, *args)
            found = check(function, *args)
            if spent and found.leaks:
                raise InputError(
                    f"result {found.leaks[0]} would be shown without noise: use a mechanism, or do not return it."
                )
            if found.opened:
                raise InputError(f"{found.opened[0]}: `spu.reveal` would show this without noise: use a mechanism.")
            _bounded(check(whole, *args).findings)
            self._covers(whole, args)
            self.spend(spent, label or getattr(function, "__name__", ""))
        return show((run or jit)(whole)(*args))

    def _covers(self, function: Callable[..., Any], args: Any) -> None:
        """InputError if groups are chosen by what one unit contributes, and a unit of this ledger may have more."""
        fewest = min(group_contributions(function, *args), default=self.contributions)
        if fewest < self.contributions:
            raise InputError(
                f"`spu.dp.groups` has contributions={fewest:g}, and one {self.unit} of this ledger may have "
                f"{self.contributions} rows: a group of that one alone would be shown too often. State the same."
            )

    def __repr__(self) -> str:
        return f"<Budget {self.path.name}: epsilon {self.spent:.4g} of {self.epsilon:g} spent, delta {self.delta:g}>"


def _bounded(findings: Sequence[Finding]) -> None:
    """InputError for a count, sum, mean or histogram of what are no rows of the arguments, as far as can be followed.

    A sensitivity that the caller states is his word; one that is less than what is proved gets a warning.
    """
    for f in findings:
        if f.by_rows and f.status != PROVED:
            much = f"by up to {f.proved:g}" if f.status == LARGER else "by an amount that cannot be followed"
            raise InputError(
                f"{f.where}: one row of the arguments changes what is counted or summed here {much}, not by "
                f"{f.stated:g}: count what is made of the arguments row by row, or use `laplace` with a `sensitivity`."
            )
        if f.status == LARGER:
            text = f"{f.where}: the sensitivity {f.stated:g} is stated, and a row may change this by {f.proved:g}."
            warnings.warn(text, UserWarning, stacklevel=4)


def _chain(db: sqlite3.Connection, start: str, terms: str, path: Path) -> tuple[list[Use], str, list[str]]:
    """The entries, the last hash, and all of them; DataError if one does not follow from the one before."""
    uses: list[Use] = []
    known = [start]
    for number, at, label, spent, digest in db.execute(
        "select number, time, label, spent, hash from uses order by number"
    ):
        if number != len(uses) + 1 or _hash(known[-1], terms, number, at, label, spent) != digest:
            raise DataError(f"entry {number} of the ledger {path} was changed, moved or taken out.")
        known.append(digest)
        uses.append(Use(number, at, label, tuple(Spent(*s) for s in json.loads(spent))))
    return uses, known[-1], known[1:]


def _name(db: sqlite3.Connection, text: str) -> None:
    db.execute("create table identity (text text not null)")
    db.execute("insert into identity values (?)", (text,))


def _identity(db: sqlite3.Connection, path: Path) -> tuple[str, str]:
    """A ledger's own, and what its entries start from; one made before ledgers had any keeps that of its place."""
    if not db.execute("select 1 from sqlite_master where type = 'table' and name = 'identity'").fetchall():
        _name(db, OF_A_PLACE + marks.at_path(path))
    found = [str(row[0]) for row in db.execute("select text from identity")]
    if len(found) != 1 or not IDENTITY.fullmatch(found[0]):
        raise DataError(f"the identity of the ledger {path} was changed.")
    earlier = found[0].startswith(OF_A_PLACE)
    return found[0].removeprefix(OF_A_PLACE), START if earlier else _hash(found[0])


def _legible(label: str) -> str:
    """A use's label; InputError for what is no text."""
    if not isinstance(label, str):
        raise InputError(f"the label of a use must be a text, got {label!r}.")
    return label.encode("utf-8", "backslashreplace").decode()


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
