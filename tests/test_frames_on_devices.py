"""Frames and columns as arguments of functions on an SPU: any JAX function runs on a joined table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import spuvm as spu
from spuvm import ml
from spuvm.data.advice import ADVICE
from spuvm.runtime.errors import InputError, VisibilityError

AGES = pd.DataFrame({"id": range(6), "age": [30.0, 41, 52, 63, 74, 85], "ill": [True, False, True, True, False, True]})
SIZES = pd.DataFrame({"id": range(6), "bmi": [21.5, 25, 30.5, 22, 28, 24], "kind": list("abbaab")})
GAPS = AGES.assign(age=AGES.age.where(AGES.id != 2))


@pytest.fixture
def device() -> Iterator[spu.SPU]:
    spu.init(parties=["alice", "bob", "carol"], address="local")
    yield spu.SPU(["alice", "bob", "carol"])
    spu.shutdown()


def vertical(ages: pd.DataFrame = AGES, **options: Any) -> Any:
    return spu.data.vertical({"alice": ages, "bob": SIZES}, key="id", **options)


def test_a_vertical_frame_is_its_owners_columns(device: spu.SPU) -> None:
    frame = vertical(missing=False)
    seen = {}

    def mean_product(t: Any) -> Any:
        seen.update({name: x.dtype for name, x in t.items()})
        return jnp.where(t["ill"], t["age"] * t["bmi"], 0.0).sum(), t["age"].mean(), t["kind"]

    product, age, kind = device(mean_product)(frame)
    expected = (AGES.age * SIZES.bmi)[AGES.ill].sum()
    np.testing.assert_allclose(spu.reveal(product), expected, atol=1e-2)
    assert (product.visibility, age.visibility, kind.visibility) == ("secret", "private(alice)", "private(bob)")
    assert seen == {"ill": np.bool_, "age": np.float32, "bmi": np.float32, "kind": np.int32}
    np.testing.assert_array_equal(spu.reveal(kind), [0, 1, 1, 0, 0, 1])


def test_missing_cells_are_nan(device: spu.SPU) -> None:
    mean, known, count = spu.reveal(
        device(lambda t: (t["age"].mean(), jnp.nanmean(t["age"]), jnp.isnan(t["age"]).sum()))(vertical(GAPS))
    )
    assert np.isnan(mean) and count == 1
    np.testing.assert_allclose(known, GAPS.age.mean(), atol=1e-3)
    moved = vertical(GAPS)["age"].arguments(device).to(spu.PYU("bob"))
    np.testing.assert_allclose(spu.reveal(device(jnp.nanmean)(moved)), GAPS.age.mean(), atol=1e-3)


def test_a_horizontal_frame_is_secret_in_the_order_of_its_parties(device: spu.SPU) -> None:
    frame = spu.data.horizontal({"alice": GAPS, "bob": AGES[:2]})
    age = frame["age"].to(device)
    assert age.visibility == "secret"
    np.testing.assert_allclose(spu.reveal(age), [*GAPS.age, *AGES.age[:2]], atol=1e-4)
    ill = spu.reveal(
        device(lambda t: t["ill"].sum())(spu.data.horizontal({"alice": AGES, "bob": AGES[:2]}, missing=False))
    )
    assert ill == 5


def test_columns_and_other_arguments(device: spu.SPU) -> None:
    frame, limit = vertical(), spu.PYU("carol")(lambda: 50.0)()
    older = device(lambda age, bmi, limit, k: jnp.where(age > limit, bmi, 0.0).sum() * k)
    np.testing.assert_allclose(
        spu.reveal(older(frame["age"], frame["bmi"], limit, k=2.0)), SIZES.bmi[AGES.age > 50].sum() * 2, atol=1e-3
    )
    assert sorted(frame.to(device)) == ["age", "bmi", "ill", "kind"]


def test_tables_of_transformers_and_of_joins(device: spu.SPU) -> None:
    frame = vertical()[["age", "bmi"]]
    scaled = ml.StandardScaler().fit(frame).transform(frame)
    deviation = spu.reveal(device(lambda t: (t["age"].std(), t["bmi"].std()))(scaled))
    np.testing.assert_allclose(deviation, 1, atol=1e-3)
    joined = spu.psi.join({"alice": AGES, "bob": SIZES[:3]}, key="id", how="left", output="shared")
    assert spu.reveal(device(lambda t: jnp.where(t["valid"], t["age"], 0).sum())(joined)) == AGES.age.sum()


def test_a_frame_has_no_values_in_python(device: spu.SPU) -> None:
    frame = vertical()
    with pytest.raises(InputError, match="cells stay with those who have them"):
        spu.reveal({"x": frame})
    with pytest.raises(VisibilityError, match=r"several parties': give what it has `.at\('bob'\)`"):
        spu.PYU("bob")(len)(frame)
    with pytest.raises(InputError, match=r"goes to an SPU, not to PYU\('bob'\)"):
        frame.to(spu.PYU("bob"))
    for wrong in (
        lambda: frame["age"] > 50,
        lambda: frame["age"] == 50,
        lambda: frame["age"] != frame["bmi"],
        lambda: 2 * frame["age"],
        lambda: frame["age"] + frame["bmi"],
        lambda: frame[frame["age"] > 50],
        lambda: list(frame["age"]),
        lambda: np.asarray(frame["age"]),
        lambda: bool(frame["age"]),
        lambda: frame["age"][0],
    ):
        with pytest.raises(InputError, match="compute with columns on a device"):
            wrong()


def test_what_pandas_has_is_answered(device: spu.SPU) -> None:
    frame = vertical()
    assert list(frame) == ["age", "ill", "bmi", "kind"]
    assert frame.drop(columns=["age"]).columns == frame.drop("age").columns == ("ill", "bmi", "kind")
    for name, advice in ADVICE.items():
        with pytest.raises(AttributeError) as error:
            getattr(frame, name)
        assert advice in str(error.value)
    with pytest.raises(AttributeError, match=r"columns by name: `frame\['age'\]`"):
        frame.age  # noqa: B018
    assert not hasattr(frame, "nonsense")
    for module in ("describe", "corr", "SimpleImputer"):
        assert hasattr(ml, module)
