"""How each operation of the IR becomes kernel calls: one rule an operation.

Every rule reads its operands in the share kind that suits it and sets its output. Known operands are
computed where they are known; the rest is in the other files of this folder.
"""

from __future__ import annotations

from spuvm.compiler.expand.arithmetic import (
    LEADING,
    expand_bitcast,
    expand_convert,
    expand_dot,
    expand_exp2,
    expand_harmonics,
    expand_integer_division,
    expand_mul,
    expand_scaled,
    expand_trunc,
    linear,
)
from spuvm.compiler.expand.control import (
    expand_cond,
    expand_guarded,
    expand_loop,
    expand_reveal,
    expand_share,
    expand_while,
)
from spuvm.compiler.expand.expander import Rule
from spuvm.compiler.expand.local import expand_const, local_rule
from spuvm.compiler.expand.logic import (
    bits_rule,
    expand_equal,
    expand_less,
    expand_not,
    expand_prefix_or,
    expand_select,
    expand_shift_left,
    logical,
    or_,
)
from spuvm.compiler.expand.masked import expand_mask
from spuvm.compiler.expand.random import expand_random
from spuvm.compiler.expand.sharings import (
    ADD,
    AND,
    NEG,
    OR,
    PARITY,
    SHIFT_RIGHT,
    SUB,
    XOR,
    add,
    and_,
    neg,
    sub,
    xor,
)
from spuvm.compiler.expand.sort import expand_sort
from spuvm.compiler.expand.wrap import expand_wrap
from spuvm.compiler.ir.ops import LOCAL
from spuvm.runtime.ring import in_the_clear

EXPAND: dict[str, Rule] = {
    "const": expand_const,
    "random": expand_random,
    "add": linear("add", ADD, add),
    "sub": linear("sub", SUB, sub),
    "neg": linear("neg", NEG, neg),
    "mul": expand_mul,
    "dot": expand_dot,
    "trunc": expand_trunc,
    "convert": expand_convert,
    "bitcast": expand_bitcast,
    "exp2": expand_exp2,
    "harmonics": expand_harmonics,
    "scaled": expand_scaled,
    **LEADING,
    "less": expand_less,
    "equal": expand_equal,
    "and": logical("and", AND, and_),
    "or": logical("or", OR, or_),
    "xor": logical("xor", XOR, xor),
    "not": expand_not,
    "shift_left": expand_shift_left,
    "shift_right_logical": bits_rule("shift_right", SHIFT_RIGHT),
    "shift_right_arithmetic": bits_rule("shift_right_arithmetic", in_the_clear.shift_right_arithmetic),
    "prefix_or": expand_prefix_or,
    "bit_parity": bits_rule("parity", PARITY, "uint8", "mask"),
    "wrap": expand_wrap,
    "select": expand_select,
    "integer_division": expand_integer_division,
    "mask": expand_mask,
    "sort": expand_sort,
    "reveal": expand_reveal,
    "share": expand_share,
    "guarded": expand_guarded,
    "loop": expand_loop,
    "cond": expand_cond,
    "while": expand_while,
    **{name: local_rule(name) for name in LOCAL},
}
