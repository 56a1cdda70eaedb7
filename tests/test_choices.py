"""What a value may be, through choices that share what they choose from, and through branches."""

from __future__ import annotations

from spuvm.compiler.ir.module import Op, Region, Value
from spuvm.compiler.ir.ops import parse_element
from spuvm.compiler.passes.choices import Made, choices, pinned

NUMBER, BOOL = parse_element("fxp18"), parse_element("bool")


def test_a_network_of_choices_is_gone_through_once() -> None:
    """As of sorts by comparisons: there are 2^4000 ways, and the way is too long for Python's stack."""
    condition, first, second = Value(BOOL), Value(NUMBER), Value(NUMBER)
    region, low, high = Region([condition, first, second]), first, second
    for _ in range(4000):
        pairs = (low, high), (high, low)
        region.ops += [Op("select", [condition, *pair], [Value(NUMBER)]) for pair in pairs]
        low, high = (op.output for op in region.ops[-2:])
    assert {m.value for m in choices(low, None, region).made} == {first, second}
    assert choices(high, first, region).made == [Made(region, second, first)]
    assert choices(first, first, region).made == [Made(region, first, first)]


def test_branches_are_gone_into_if_that_is_asked() -> None:
    which, before, other = Value(BOOL), Value(NUMBER), Value(NUMBER)
    kept, changed = (Region([Value(NUMBER)]) for _ in range(2))
    kept.results = list(kept.params)
    changed.ops.append(Op("add", [changed.params[0], changed.params[0]], [Value(NUMBER)]))
    changed.results = [changed.ops[0].output]
    branch = Op("cond", [which, before], [Value(NUMBER)], regions=[kept, changed])
    last = Op("select", [which, branch.output, other], [Value(NUMBER)])
    region = Region([which, before, other], [branch, last], [last.output])
    found = choices(last.output, before, region, into=True)
    of_branch = Made(changed, changed.results[0], changed.params[0])
    assert {(m.region, m.value, m.before) for m in found.made} == {
        (of_branch.region, of_branch.value, of_branch.before),
        (region, other, before),
    }
    (passed,) = found.passed
    assert (passed.op, passed.output, passed.operand) == (branch, 0, 1)
    assert [*pinned(passed)] == [branch.output, kept.params[0], changed.params[0]]
    assert set(choices(last.output, before, region).values) == {branch.output, other}
