"""Every error spuvm raises on purpose, one class per family.

A message says what was given, what is wrong with it and what to do instead. No message
contains a secret value: shapes, names, limits and counts only.
"""

from spuvm.runtime.legible import legible

OWN_ERROR = "an error of its own, which its own message explains"


class SpuError(Exception):
    """Base of all of them; the command line prints its message and exits with `exit_status`.

    `told` is all that peers learn of one; None is the message itself, where that holds nothing but what all know.
    """

    exit_status = 1
    told: str | None = OWN_ERROR

    def __str__(self) -> str:
        """Parts of a message may come from a peer or a file: they move no terminal, in tracebacks either."""
        return legible(super().__str__(), lines=True)


class ConfigError(SpuError):
    """A configuration (protocol, ring, parties, cluster file) that cannot be used."""

    exit_status = 2


class InputError(SpuError):
    """An argument, file, column or shape that does not fit the program."""

    exit_status = 2


class PublicError(InputError):
    """An input that does not fit what all parties have said openly: every one of them can find it by itself."""

    told = None


class NotFittedError(InputError, AttributeError):
    """A model that has learned nothing yet; an AttributeError, too, so `hasattr` of what it would know is False."""


class SaveError(InputError):
    """A result that could not be written where it should be. What was computed is still here: the same call may be made
    again, by all parties. `here` says whether it is this party that could not write.
    """

    def __init__(self, message: str, here: bool = True) -> None:
        super().__init__(message)
        self.here = here


class DataError(InputError):
    """Something about a party's own rows, which its message may count and number."""


class EncodingError(DataError):
    """A value that the ring cannot hold: NaN, infinite, or beyond the stated limit."""


class RangeError(SpuError, OverflowError):
    """Of a guarded program: a number left what the ring holds. Every party finds it itself; nothing was revealed."""

    told = None


class RangeWarning(UserWarning):
    """What is stated of a function's numbers allows some that the ring does not hold."""


class PolicyError(SpuError):
    """A query, or another use of an owner's data, that the owner does not allow; says whose rule and what it allows."""

    exit_status = 2


class CompileError(SpuError):
    """A program that cannot be compiled; names the primitive and the user's line."""

    exit_status = 2


class UnsupportedError(CompileError):
    """A primitive, or a use of one, that has no secure implementation."""


class VisibilityError(CompileError):
    """A secret or private value where a public or static one is needed."""


class IRError(CompileError):
    """An ill-formed program text: found by the parser or by the checker."""


class ProtocolError(CompileError):
    """A protocol kernel that breaks a rule of the choreography (ownership, masks, widths)."""


class LinkError(SpuError):
    """Communication between the parties failed."""

    exit_status = 3


class PeerTimeoutError(LinkError):
    """A peer said nothing within the time limit."""

    told = None


class PeerLostError(LinkError):
    """A peer closed the connection or died."""

    told = None


class PeerMismatchError(LinkError):
    """A peer runs another program, configuration or version."""

    told = None


class DeviationError(LinkError):
    """A party, under a protocol that notices it, sent or computed something else than the program says.

    Peers are told no more than that: which of several checks failed may depend on secrets, that one did does not.
    """

    told = "a party deviates from the program. Nothing more is revealed."


class CertificateError(LinkError):
    """A certificate is expired, of another authority, or of another party; `told` names no file of its own."""

    def __init__(self, message: str, told: str | None = None) -> None:
        super().__init__(message)
        self.told = told


class PeerAbortedError(LinkError):
    """A peer stopped with an error of its own and said so."""

    told = None


class CancelledError(SpuError):
    """What ran was cancelled by the party that asked for it: nothing of it was shown."""

    exit_status = 130
    told = None


def for_peers(error: BaseException) -> str:
    """All that peers may know of an error. A party's data, code, paths and names stay with it, their class, too."""
    if not isinstance(error, SpuError):
        return OWN_ERROR
    return str(error) if error.told is None else error.told
