"""Every error spuvm raises on purpose, one class per family.

A message says what was given, what is wrong with it and what to do instead. No message
contains a secret value: shapes, names, limits and counts only.
"""


class SpuError(Exception):
    """Base of all of them; the command line prints its message and exits with `exit_status`."""

    exit_status = 1


class ConfigError(SpuError):
    """A configuration (protocol, ring, parties, cluster file) that cannot be used."""

    exit_status = 2


class InputError(SpuError):
    """An argument, file, column or shape that does not fit the program."""

    exit_status = 2


class DataError(InputError):
    """Something about a party's own rows, which its message may count and number: peers are not told what."""


class EncodingError(DataError):
    """A value that the ring cannot hold: NaN, infinite, or beyond the stated limit."""


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


class PeerLostError(LinkError):
    """A peer closed the connection or died."""


class PeerMismatchError(LinkError):
    """A peer runs another program, configuration or version."""


class CertificateError(LinkError):
    """A certificate is expired, of another authority, or of another party."""


class PeerAbortedError(LinkError):
    """A peer stopped with an error of its own and said so."""
