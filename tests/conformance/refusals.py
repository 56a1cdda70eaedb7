"""What is refused by design: the beginning of the reason that the compiler gives, and why there is no other way."""

from __future__ import annotations

REFUSALS: dict[str, str] = {
    "a ring of 32 bits does not hold": "64 bits do not fit 32",
    "a remainder by a secret in a ring of 32": "an exact quotient takes words of twice the width",
    "by a secret in a ring of": "the estimates of an exact quotient are made for rings of 64 bits",
    "the shift's amount is": "shifting by a secret amount takes a word of twice the width",
    "Neighbouring floats": "fixed point has no neighbouring floats",
    "the bits of a float are not": "fixed point does not have the bits of a float",
    "Eigenvalues of a general matrix": "eigenvalues of a matrix that is not symmetric are complex",
    "Secret values cannot be printed": "nobody knows the value",
    "Python callbacks cannot run": "nobody knows the value",
    "the loop's condition is": "how often a loop runs is seen by all",
    "a random key or seed that is not public": "random numbers of a secret key would take AES on shares",
    "several windows at secret places": "whether windows overlap is secret, and in what order they are written matters",
    "the index is": "an index that decides which memory is touched",
}


def by_design(reason: str) -> str | None:
    """The entry of the table that a reason belongs to."""
    return next((start for start in REFUSALS if start in reason), None)
