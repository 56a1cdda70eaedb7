"""HEU, semi-honest: one party keeps the secret key, others compute on ciphertexts under it.

The keeper must not collude with an evaluator: together they read every ciphertext that the evaluator has had. The
keeper sees what is decrypted for it, and everything else masked by an evaluator's randomness; who computes sees
ciphertexts alone. Before a ciphertext leaves an evaluator, it is encrypted anew and flooded with noise, so that it
says nothing of the plaintexts that went in but its own value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from spuvm.context import here
from spuvm.devices import PYU, SPU, PYUObject, Taker, describe
from spuvm.he import exchange, layout, numbers
from spuvm.he.object import HEUObject
from spuvm.he.operations import BINARY, UNARY, limit
from spuvm.he.paillier import Paillier
from spuvm.he.parameters import MASK_BITS, parameters
from spuvm.he.rlwe import Rlwe
from spuvm.he.scheme import Scheme
from spuvm.objects import Receiver, SPUObject
from spuvm.runtime.errors import ConfigError, InputError, PeerMismatchError
from spuvm.runtime.machine.session import abort_on_error

T = TypeVar("T")
ROOM = 20  # bits of noise that a ciphertext may still take on after it was moved
KEY_NAME = 16  # bytes that name a key, at the head of each message


class HEU(Receiver, Taker):
    """Additively homomorphic encryption among the parties that `init` named.

    `x.to(heu)` is a plaintext at its party, `.encrypt()` encrypts it. Of a sum or product the operand that is not
    at the evaluator is encrypted and moved there; of the factors of a product one must be the evaluator's plaintext.

    Args:
        sk_keeper: the party that keeps the secret key, or SecretFlow's configuration as a dictionary.
        evaluators: the parties that compute on ciphertexts; the first is preferred.
        scheme: "rlwe" (thousands of numbers a ciphertext) or "paillier" (one; needs the extra `he`).
        degree: of ring-LWE's polynomials, 16384 or 8192 (half the bytes, for numbers below 2^42).
        key_bits: of Paillier's modulus, from 2048 on.
        fxp_fraction_bits: of floats; a product has the sum of its factors'.

    Raises:
        ConfigError: for unknown parties, schemes or parameters.
    """

    def __init__(
        self,
        sk_keeper: Any,
        evaluators: Sequence[str] = (),
        *,
        scheme: str = "rlwe",
        degree: int = 16384,
        key_bits: int = 2048,
        fxp_fraction_bits: int = 18,
    ) -> None:
        if isinstance(sk_keeper, Mapping):
            sk_keeper, evaluators, scheme, key_bits = _from_secretflow(sk_keeper, scheme, key_bits)
        self.sk_keeper, self.evaluators = sk_keeper, tuple([evaluators] if isinstance(evaluators, str) else evaluators)
        self._check_parties()
        if not isinstance(fxp_fraction_bits, int) or not 0 <= fxp_fraction_bits <= 32:
            raise ConfigError(f"`fxp_fraction_bits` must be 0 to 32, got {fxp_fraction_bits!r}.")
        self.frac = fxp_fraction_bits
        self.scheme: Scheme = _scheme(scheme, degree, key_bits)
        here().propose("an HEU", f"{self.sk_keeper} {self.evaluators} {self.scheme.name} {self.frac}")
        keys = self.at(self.sk_keeper, self.scheme.make_keys)
        self._secret = None if keys is None else keys[1]
        body = self._broadcast(None if keys is None else self.scheme.key_bytes(keys[0]))
        self.public = self._read(self.scheme.key_from, body, self.sk_keeper)
        self.key_name = hashlib.sha256(self.scheme.name.encode() + body).digest()[:KEY_NAME]

    def _check_parties(self) -> None:
        known = here().parties
        for name in (self.sk_keeper, *self.evaluators):
            if name not in known:
                raise ConfigError(f"`HEU` among {name!r}: the parties are {', '.join(known)}.")
        if not self.evaluators or self.sk_keeper in self.evaluators or len(set(self.evaluators)) < len(self.evaluators):
            raise ConfigError(
                f"`evaluators` must be one party or more, none twice, and not the keeper {self.sk_keeper!r}, who could "
                f"decrypt all that is computed: got {list(self.evaluators)}."
            )

    @property
    def sk_keeper_device(self) -> PYU:
        return PYU(self.sk_keeper)

    def __repr__(self) -> str:
        return f"<HEU {self.scheme.name.split()[0]}, key at {self.sk_keeper}, computed at {', '.join(self.evaluators)}>"

    # In -----------------------------------------------------------------------------------------------------

    def take(self, x: PYUObject, *, bits: int | None = None, **options: Any) -> Any:
        """A plaintext at its party for each array; `bits`: all numbers are below 2^bits."""
        if options:
            raise InputError(f"moving to {self!r} takes `bits`, got {sorted(options)}.")
        describe([x])
        leaves, tree = jax.tree.flatten(x.structure)
        party, where = x.device.party, here().party
        with abort_on_error(here().link):
            made = [self._plaintext(leaf, party, where in (None, party), f"{x.identity}[{i}]", bits)
                    for i, leaf in enumerate(leaves)]  # fmt: skip
        return jax.tree.unflatten(tree, made)

    def receive(self, x: SPUObject) -> HEUObject:
        """A secret of an SPU, encrypted at an evaluator; see `exchange`."""
        return exchange.from_spu(self, x)

    def _plaintext(self, leaf: Any, party: str | None, known: bool, name: str, bits: int | None = None) -> HEUObject:
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        frac, bound = numbers.form(np.dtype(dtype), self.frac, bits, name)
        value = numbers.encoded(np.asarray(leaf), frac, bound, name) if known else None
        return HEUObject(self, party, tuple(np.shape(leaf)), np.dtype(dtype), frac, bound, value)

    def operand(self, x: Any) -> HEUObject:
        if isinstance(x, PYUObject | SPUObject):
            x = x.to(self)
        if not isinstance(x, HEUObject):
            array = np.asarray(x)
            made = self._plaintext(array, None, True, "a number")
            largest = max((abs(int(v)) for v in (made.value.min(), made.value.max())), default=0) if array.size else 0
            return made.with_(bound=max(largest, 1))
        if x.heu is not self:
            raise InputError(f"{x!r} belongs to another HEU, with another key: move it by `.to(party)`.")
        return x

    def apply(self, name: str, *operands: Any) -> HEUObject:
        """An operation by name, after all parties' scripts have said the same."""
        if name in UNARY:
            return UNARY[name](*operands)
        x, y = (self.operand(o) for o in operands[:2])
        here().propose("encrypted", f"{name} {x!r} {y!r}")
        return BINARY[name](x, y, *operands[2:])

    def encrypted(self, x: HEUObject) -> HEUObject:
        if x.encrypted:
            return x
        party = x.party or self.evaluators[0]
        limit(x.bound, self.scheme.modulus // 4, x, "a ciphertext")
        places, cells = layout.natural(x.shape, self.scheme.slots)
        scheme, key = self.scheme, self.public
        out = x.with_(party=party, places=places, cells=cells, noise=scheme.fresh)
        return out.with_(value=self.at(party, lambda: scheme.encrypt(self.spread(out, x.value), key)))

    # Where things are -----------------------------------------------------------------------------------------

    def at(self, party: str | None, compute: Callable[[], T]) -> T | None:
        """What is computed at a party (None: at all), None elsewhere."""
        if party is not None and here().party not in (None, party):
            return None
        with abort_on_error(here().link):
            return compute()

    def fail(self, error: Exception) -> None:
        with abort_on_error(here().link):
            raise error

    def together(self, x: HEUObject, y: HEUObject) -> tuple[HEUObject, HEUObject]:
        """Both at one evaluator: whose plaintext goes in, or where a ciphertext lies. Public ones as they are."""
        if not x.encrypted and not y.encrypted and (x.party == y.party or None in (x.party, y.party)):
            party = x.party or y.party
            return x.with_(party=party), y.with_(party=party)
        candidates = [o.party for o in sorted((x, y), key=lambda o: not o.encrypted) if o.party in self.evaluators]
        plain = [o.party for o in (x, y) if not o.encrypted and o.party in self.evaluators]
        party = (plain or candidates or [self.evaluators[0]])[0]
        return self._there(x, party), self._there(y, party)

    def _there(self, x: HEUObject, party: str | None) -> HEUObject:
        if x.party == party or x.party is None:
            return x
        return self._sent(self.encrypted(x), str(party))

    def _sent(self, x: HEUObject, party: str) -> HEUObject:
        """A ciphertext at another evaluator."""
        scheme, key = self.scheme, self.public
        if x.computed and x.noise + scheme.moved + ROOM > scheme.budget:
            x = self.refreshed(x)
        if x.computed:
            x = self.checked(x.with_(noise=x.noise + scheme.moved), x.noise)
        body = self.at(x.party, lambda: self._hidden_bytes(x) if x.computed else self._body(x.value))
        value = self._move(x.party, party, body, lambda b: scheme.from_bytes(b, key), x.cells)
        return x.with_(party=party, value=value)

    def _hidden_bytes(self, x: HEUObject) -> bytes:
        return self._body(self.scheme.hidden(x.value, x.noise - self.scheme.moved, self.public))

    # Out ----------------------------------------------------------------------------------------------------------

    def moved(self, x: HEUObject, device: Any) -> Any:
        if isinstance(device, SPU):
            return exchange.to_spu(self, x, device)
        if device is self:
            return x
        if isinstance(device, str):
            if device not in self.evaluators:
                raise ConfigError(
                    f"`to` must be a device, or one of the evaluators {', '.join(self.evaluators)}: {device!r}."
                )
            return self._there(x, device)
        if not isinstance(device, PYU):
            raise InputError(f"{x!r} goes to a PYU, an SPU or an evaluator's name, got {device!r}.")
        here().propose("decrypted", f"{x!r} for {device.party}")
        if not x.encrypted or x.party == self.sk_keeper:
            party = x.party or device.party
            return PYUObject(PYU(party), self.at(party, lambda: self._own(x))).to(device)
        scheme, key, size = self.scheme, self.public, x.size
        if device.party == self.sk_keeper:
            plain, _ = self.to_keeper(x, None)
            return PYUObject(device, self.at(device.party, lambda: self._decoded(plain, x)))
        plain, mask = self.to_keeper(x, lambda: scheme.uniform(size, key))
        here_masked = self._plain_moved(self.sk_keeper, device.party, plain, size)
        here_mask = self._plain_moved(str(x.party), device.party, mask, size)
        value = self.at(
            device.party,
            lambda: self._decoded(scheme.total(here_masked, scheme.negative(here_mask, key), key), x),
        )
        return PYUObject(device, value)

    def to_keeper(self, x: HEUObject, mask: Callable[[], Any] | None) -> tuple[Any, Any]:
        """x + mask decrypted at the keeper, a plaintext [x.size] in order, and the mask at x's party.

        Slots that are no element's are masked uniformly, and those of one element so that only their sum is left.
        """
        scheme, key = self.scheme, self.public
        assert x.places is not None
        places = x.places.reshape(x.size, x.places.shape[-1])
        self.checked(x)

        def masked() -> tuple[bytes, Any]:
            own = mask() if mask is not None else scheme.plain(np.zeros(x.size, np.int64), key)
            words = scheme.add_plain(x.value, self._cover(x, places, own), key)
            return self._body(scheme.hidden(words, x.noise + 1, key)), own

        made = self.at(x.party, masked)
        words = self._move(x.party, self.sk_keeper, made and made[0], lambda b: scheme.from_bytes(b, key), x.cells)
        plain = self.at(self.sk_keeper, lambda: scheme.select(scheme.decrypt(words, self._secret, key), places, key))
        return plain, made and made[1]

    def _cover(self, x: HEUObject, places: Any, own: Any) -> Any:
        """Uniform at all slots, but so that each element's slots sum to `own`."""
        scheme, key = self.scheme, self.public
        cover = scheme.uniform(x.cells * scheme.slots, key)
        if not x.size or not places.shape[1]:
            return cover
        rest = scheme.select(cover, places[:, 1:], key) if places.shape[1] > 1 else None
        first = own if rest is None else scheme.total(own, scheme.negative(rest, key), key)
        return scheme.scatter(first, places[:, 0], x.cells * scheme.slots, cover, key)

    def refreshed(self, x: HEUObject) -> HEUObject:
        """Encrypted anew in natural order: the keeper sees it under a uniform mask."""
        if not x.encrypted:
            return x
        return self._relaid(x, lambda: self.scheme.uniform(x.size, self.public), x.places)

    def _relaid(self, x: HEUObject, mask: Callable[[], Any], places: Any) -> HEUObject:
        here().propose("encrypted", f"{x!r} anew")
        scheme, key = self.scheme, self.public
        new, cells = layout.natural(x.shape, scheme.slots)
        plain, own = self.to_keeper(x, mask)
        out = x.with_(places=new, cells=cells, noise=scheme.fresh + 1, computed=True)
        body = self.at(self.sk_keeper, lambda: self._body(scheme.encrypt(self.spread_plain(out, plain), key)))
        words = self._move(self.sk_keeper, str(x.party), body, lambda b: scheme.from_bytes(b, key), cells)
        negative = self.at(x.party, lambda: scheme.negative(self.spread_plain(out, own), key))
        return out.with_(value=self.at(x.party, lambda: scheme.add_plain(words, negative, key)))

    # For operations ----------------------------------------------------------------------------------------------

    def spread(self, x: HEUObject, value: Any, once: bool = False) -> Any:
        """A plaintext vector for x's cells: each element's number at all its slots, or at the first alone."""
        assert x.places is not None
        flat = np.zeros(x.cells * self.scheme.slots, value.dtype)
        if x.places.shape[-1]:
            flat[x.places[..., :1] if once else x.places] = np.asarray(value)[..., None]
        return self.scheme.plain(flat, self.public)

    def spread_plain(self, x: HEUObject, plain: Any) -> Any:
        """The same of a plaintext [x.size], at natural places."""
        assert x.places is not None
        return self.scheme.scatter(plain, x.places.reshape(-1), x.cells * self.scheme.slots, None, self.public)

    def checked(self, x: HEUObject, noise: float | None = None) -> HEUObject:
        """x, if its numbers fit and it can be decrypted; InputError else."""
        limit(x.bound if not x.ring else 0, self.scheme.modulus // 4, x, "a ciphertext")
        if x.encrypted and (noise or x.noise) > self.scheme.budget:
            over = (noise or x.noise) - self.scheme.budget
            raise InputError(
                f"{x!r} would have more noise than can be decrypted (by {over:.0f} bits): "
                "`.refresh()` a ciphertext before it is multiplied again."
            )
        if x.ring:
            limit(x.bound << MASK_BITS + 1, self.scheme.modulus // 4, x, "a masked ciphertext")
        return x

    def settled(self, x: HEUObject) -> HEUObject:
        """Without cells that no element needs, and each element with slots of its own: repeated ones are refreshed."""
        assert x.places is not None
        if not x.places.shape[-1]:
            return self._zeros(x)
        if self.scheme.slots == 1:
            return self._added_up(x)
        if not layout.distinct(x.places):
            numbered, inverse = np.unique(x.places.reshape(x.size, x.places.shape[-1]), axis=0, return_inverse=True)
            single = x.with_(shape=(len(numbered),), places=numbered)
            return self._spread_out(self.settled(single) if layout.distinct(numbered) else single, x.shape, inverse)
        places, used = layout.with_used_cells(x.places, self.scheme.slots)
        if len(used) == x.cells:
            return x
        value = self.at(x.party, lambda: self.scheme.summed(x.value, used[:, None], self.public))
        return x.with_(places=places, cells=len(used), value=value)

    def _zeros(self, x: HEUObject) -> HEUObject:
        """Sums of nothing, which have no slots that could be masked: encrypted anew."""
        scheme, key = self.scheme, self.public
        places, cells = layout.natural(x.shape, scheme.slots)
        out = x.with_(places=places, cells=cells, noise=scheme.fresh, computed=True)

        def encrypted() -> Any:
            some = scheme.uniform(x.size, key)
            return scheme.encrypt(self.spread_plain(out, scheme.total(some, scheme.negative(some, key), key)), key)

        return out.with_(value=self.at(x.party, encrypted))

    def _added_up(self, x: HEUObject) -> HEUObject:
        """Of cells with one slot: a cell for each element."""
        assert x.places is not None
        groups = x.places.reshape(x.size, x.places.shape[-1])
        places, _ = layout.natural(x.shape, 1)
        value = self.at(x.party, lambda: self.scheme.summed(x.value, groups, self.public))
        return x.with_(places=places, cells=x.size, value=value)

    def _spread_out(self, x: HEUObject, shape: tuple[int, ...], inverse: Any) -> HEUObject:
        """Elements [count] to x[inverse] of `shape`: the keeper repeats what it sees masked."""
        scheme, key = self.scheme, self.public
        here().propose("encrypted", f"{x!r} spread out")
        new, cells = layout.natural(shape, scheme.slots)
        plain, own = self.to_keeper(x, lambda: scheme.uniform(x.size, key))
        pick = np.asarray(inverse).reshape(-1, 1)
        out = x.with_(shape=shape, places=new, cells=cells, noise=scheme.fresh + 1, computed=True)
        repeated = self.at(self.sk_keeper, lambda: scheme.select(plain, pick, key))
        body = self.at(self.sk_keeper, lambda: self._body(scheme.encrypt(self.spread_plain(out, repeated), key)))
        words = self._move(self.sk_keeper, str(x.party), body, lambda b: scheme.from_bytes(b, key), cells)
        negative = self.at(x.party, lambda: scheme.negative(self.spread_plain(out, scheme.select(own, pick, key)), key))
        return out.with_(value=self.at(x.party, lambda: scheme.add_plain(words, negative, key)))

    def aligned(self, x: HEUObject, y: HEUObject) -> tuple[HEUObject, HEUObject]:
        """Ciphertexts of equal shape whose elements lie at the same places."""
        if x.cells == y.cells and np.array_equal(x.places, y.places):  # type: ignore[arg-type]
            return x, y
        return tuple(self._in_order(o) for o in (x, y))  # type: ignore[return-value]

    def _in_order(self, x: HEUObject) -> HEUObject:
        places, cells = layout.natural(x.shape, self.scheme.slots)
        return x if x.cells == cells and np.array_equal(x.places, places) else self.refreshed(x)  # type: ignore[arg-type]

    # Messages ---------------------------------------------------------------------------------------------------------

    def _own(self, x: HEUObject) -> Any:
        """A value at its party, decoded: a plaintext, or one that the keeper encrypted itself."""
        if not x.encrypted:
            return numbers.decoded(x.value, x.frac, x.dtype, 0)
        assert x.places is not None
        plain = self.scheme.decrypt(x.value, self._secret, self.public)
        flat = self.scheme.select(plain, x.places.reshape(x.size, x.places.shape[-1]), self.public)
        return self._decoded(flat, x)

    def _decoded(self, plain: Any, x: HEUObject) -> Any:
        if x.ring:
            whole: Any = self.scheme.low_words(plain, self.public)
        else:
            whole = self.scheme.integers(plain, x.bound, self.public)
        return numbers.decoded(whole.reshape(x.shape), x.frac, x.dtype, x.ring)

    def _body(self, words: Any) -> bytes:
        return self.key_name + self.scheme.to_bytes(words, self.public)

    def _move(
        self, source: str | None, target: str, body: bytes | None, read: Callable[[bytes], T], cells: int
    ) -> T | None:
        """A message with ciphertexts under this key, read at its target."""
        got = deliver(str(source), target, body)
        if got is None:
            return None
        if got[:KEY_NAME] != self.key_name or len(got) != KEY_NAME + cells * self.scheme.cell_bytes(self.public):
            self.fail(
                PeerMismatchError(
                    f"{source} sent what is not {cells} ciphertexts under {self.sk_keeper}'s key of this HEU: another "
                    "key, other parameters, or another version."
                )
            )
        return self._read(read, got[KEY_NAME:], str(source))

    def _plain_moved(self, source: str, target: str, plain: Any, count: int) -> Any:
        if source == target:
            return plain
        body = None if plain is None else self.scheme.plain_bytes(plain, self.public)
        got = deliver(source, target, body)
        return None if got is None else self._read(lambda b: self.scheme.plain_from(b, count, self.public), got, source)

    def _read(self, read: Callable[[bytes], T], body: bytes, source: str) -> T:
        with abort_on_error(here().link):
            try:
                return read(body)
            except ValueError:
                raise PeerMismatchError(f"{source} sent what is neither a key nor a ciphertext of this HEU.") from None

    def _broadcast(self, body: bytes | None) -> bytes:
        link = here().link
        if link is None:
            assert body is not None
            return body
        with abort_on_error(link):
            return link.broadcast(here().parties.index(self.sk_keeper), body)


def deliver(source: str, target: str, body: bytes | None) -> bytes | None:
    """A message from one party to another; None at all but the target."""
    context = here()
    if context.link is None or source == target:
        return body if context.party in (None, target) else None
    with abort_on_error(context.link):
        got = context.link.deliver(context.parties.index(source), [context.parties.index(target)], body)
    return got if context.party == target else None


def _scheme(scheme: str, degree: int, key_bits: int) -> Scheme:
    if scheme == "rlwe":
        return Rlwe(parameters(degree))
    if scheme == "paillier":
        return Paillier(key_bits)
    raise ConfigError(f"`scheme` must be 'rlwe' or 'paillier', got {scheme!r}.")


def _from_secretflow(config: Mapping[str, Any], scheme: str, key_bits: int) -> tuple[str, list[str], str, int]:
    """{"sk_keeper": {"party": ...}, "evaluators": [{"party": ...}], "he_parameters": {"schema": ...}}."""
    try:
        keeper, evaluators = config["sk_keeper"]["party"], [e["party"] for e in config["evaluators"]]
        he = config.get("he_parameters") or {}
        schema = str(he.get("schema", scheme)).lower()
        bits = int(((he.get("key_pair") or {}).get("generate") or {}).get("bit_size", key_bits))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(
            "`HEU` takes SecretFlow's {'sk_keeper': {'party': ...}, 'evaluators': [{'party': ...}]}."
        ) from None
    known = {"paillier": "paillier", "zpaillier": "paillier", "ou": "rlwe", "rlwe": "rlwe"}
    if schema not in known:
        raise ConfigError(f"`schema` must be one of {', '.join(known)}, got {schema!r}.")
    return keeper, evaluators, known[schema], bits
