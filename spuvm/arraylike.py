"""Operators and methods as JAX's arrays have them, of objects without a value: each is a small program of its own."""

from __future__ import annotations

from typing import Any, NoReturn

from spuvm.runtime.errors import VisibilityError

UNSHOWN = "an SPUObject has no value in Python: use `spu.reveal` to show it."


def _operator(name: str, reflected: bool = False) -> Any:
    def operator(self: ArrayLike, *others: Any) -> Any:
        return self.vm.apply(name, (*others, self) if reflected else (self, *others))

    return operator


def _method(name: str) -> Any:
    def method(self: ArrayLike, *args: Any, **kwargs: Any) -> Any:
        return self.vm.method(name, self, args, kwargs)

    method.__name__, method.__doc__ = name, f"`jax.Array.{name}`, computed on the machine."
    return method


def _property(name: str) -> Any:
    return property(lambda self: self.vm.apply(name, (self,)), doc=f"`jax.numpy.{name}`, computed on the machine.")


class ArrayLike:
    """What is asked of a value is computed by its machine; what would need to know it is refused."""

    vm: Any

    __array_priority__ = 100  # NumPy arrays on the left leave operators to us
    __array_ufunc__ = None

    __add__, __radd__ = _operator("add"), _operator("add", reflected=True)
    __sub__, __rsub__ = _operator("subtract"), _operator("subtract", reflected=True)
    __mul__, __rmul__ = _operator("multiply"), _operator("multiply", reflected=True)
    __truediv__, __rtruediv__ = _operator("true_divide"), _operator("true_divide", reflected=True)
    __floordiv__, __rfloordiv__ = _operator("floor_divide"), _operator("floor_divide", reflected=True)
    __mod__, __rmod__ = _operator("remainder"), _operator("remainder", reflected=True)
    __divmod__, __rdivmod__ = _operator("divmod"), _operator("divmod", reflected=True)
    __matmul__, __rmatmul__ = _operator("matmul"), _operator("matmul", reflected=True)
    __pow__, __rpow__ = _operator("power"), _operator("power", reflected=True)
    __and__, __rand__ = _operator("bitwise_and"), _operator("bitwise_and", reflected=True)
    __or__, __ror__ = _operator("bitwise_or"), _operator("bitwise_or", reflected=True)
    __xor__, __rxor__ = _operator("bitwise_xor"), _operator("bitwise_xor", reflected=True)
    __lshift__, __rlshift__ = _operator("left_shift"), _operator("left_shift", reflected=True)
    __rshift__, __rrshift__ = _operator("right_shift"), _operator("right_shift", reflected=True)
    __neg__, __pos__, __abs__ = _operator("negative"), _operator("positive"), _operator("abs")
    __invert__, __round__ = _operator("invert"), _method("round")
    __lt__, __le__ = _operator("less"), _operator("less_equal")
    __gt__, __ge__ = _operator("greater"), _operator("greater_equal")
    __eq__ = _operator("equal")
    __ne__ = _operator("not_equal")
    __hash__ = None  # type: ignore[assignment]

    sum, prod, cumsum, cumprod = _method("sum"), _method("prod"), _method("cumsum"), _method("cumprod")
    mean, std, var, ptp = _method("mean"), _method("std"), _method("var"), _method("ptp")
    min, max, argmin, argmax = _method("min"), _method("max"), _method("argmin"), _method("argmax")
    any, all, sort, argsort = _method("any"), _method("all"), _method("sort"), _method("argsort")
    clip, round, astype, conj = _method("clip"), _method("round"), _method("astype"), _method("conj")
    dot, trace, diagonal = _method("dot"), _method("trace"), _method("diagonal")
    take, repeat, reshape, ravel = _method("take"), _method("repeat"), _method("reshape"), _method("ravel")
    flatten, squeeze = _method("flatten"), _method("squeeze")
    transpose, swapaxes = _method("transpose"), _method("swapaxes")
    T, real, imag = _property("transpose"), _property("real"), _property("imag")

    def __getitem__(self, index: Any) -> Any:
        return self.vm.index(self, index)

    @property
    def at(self) -> NoReturn:
        """Refused: `x.at[i].set(y)` belongs into a function."""
        raise AttributeError("`x.at` is there in functions: `device(lambda x, y: x.at[i].set(y))(x, y)`.")

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise TypeError("an SPUObject is not changed: `device(lambda x, y: x.at[i].set(y))(x, y)` makes another.")

    # What would need the value

    def __bool__(self) -> bool:
        raise VisibilityError(
            "the truth of a secret value is not known to Python: use `jnp.where` or `lax.cond` inside a jitted "
            "function, or `spu.reveal` it first."
        )

    def __contains__(self, value: Any) -> bool:
        raise VisibilityError(
            "whether a secret array contains a value is not known to Python: `(x == value).any()` is a secret bool."
        )

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise VisibilityError("an SPUObject does not turn into an array by itself: use `spu.reveal` to show it.")

    def __float__(self) -> float:
        raise VisibilityError(UNSHOWN)

    __int__ = __index__ = __complex__ = __float__

    def item(self, *args: Any) -> NoReturn:
        """Refused, as `tolist` is: a secret has no value in Python."""
        raise VisibilityError(UNSHOWN)

    tolist = item

    def __format__(self, spec: str) -> str:
        if spec:
            raise VisibilityError(UNSHOWN)
        return repr(self)
