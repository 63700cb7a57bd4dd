"""Sixteen float32 at once, for loops that are compiled by numba.

Left to itself the compiler turns short loops into single steps rather than vectors, and asks before each longer one
whether its arrays overlap. Here a loop says what it wants: values of this type are one vector register where the
processor has such (AVX-512), else two or four, and stay in them between operations.

numba keeps what it has compiled by the file of the loop: after a change here, remove that file's `__pycache__`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_PLACES = ir.VectorType(ir.IntType(32), LANES)
_operation: Any = intrinsic
_loop: Any = partial(njit, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)()


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


_lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, described: Any) -> None:
        super().__init__(manager, described, FLOATS)


def address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Where sixteen floats begin, as a pointer to all of them."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at], inbounds=True), FLOATS.as_pointer())


def spread_in(builder: Any, value: Any, kind: ir.VectorType = FLOATS) -> Any:
    """The same number in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_PLACES, [0] * LANES))


def first(builder: Any, count: Any) -> Any:
    """Which lanes are among the first `count`."""
    places = ir.Constant(_PLACES, list(range(LANES)))
    return builder.icmp_unsigned("<", places, spread_in(builder, builder.trunc(count, ir.IntType(32)), _PLACES))


def call(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def clamped(builder: Any, value: Any, low: Any, high: Any) -> Any:
    value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    return builder.select(builder.fcmp_ordered(">", value, high), high, value)


@_operation
def load(_: Any, array: Any, at: Any) -> Any:
    """The sixteen floats of a flat array from `at`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(address(context, builder, signature.args[0], *values), align=4)

    return _lanes(array, at), generate


@_operation
def load_constant(_: Any, array: Any, at: Any) -> Any:
    """The same of an array that nothing writes to while the compiled function runs: it need not be read again."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = builder.load(address(context, builder, signature.args[0], *values), align=4)
        lanes.set_metadata("invariant.load", builder.module.add_metadata([]))
        return lanes

    return _lanes(array, at), generate


@_operation
def store(_: Any, array: Any, at: Any, lanes: Any) -> Any:
    """Write sixteen floats to a flat array from `at`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], address(context, builder, signature.args[0], *values[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, at, lanes), generate


@_operation
def _load_first(_: Any, array: Any, at: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *values[:2])
        nothing = ir.Constant(FLOATS, [0.0] * LANES)
        arguments = [pointer, ir.IntType(32)(4), first(builder, values[2]), nothing]
        return call(builder, f"llvm.masked.load.v{LANES}f32.p0", FLOATS, arguments)

    return _lanes(array, at, count), generate


@_operation
def _store_first(_: Any, array: Any, at: Any, lanes: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *values[:2])
        arguments = [values[2], pointer, ir.IntType(32)(4), first(builder, values[3])]
        call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(array, at, lanes, count), generate


@_loop
def load_up_to(array: Any, at: Any, count: Any) -> Any:
    """The first `count` of sixteen floats, and zeros."""
    return load(array, at) if count >= LANES else _load_first(array, at, count)


@_loop
def store_up_to(array: Any, at: Any, lanes: Any, count: Any) -> None:
    """Write the first `count` of sixteen floats, and leave what lies after them."""
    if count >= LANES:
        store(array, at, lanes)
    else:
        _store_first(array, at, lanes, count)


@_operation
def spread(_: Any, value: Any) -> Any:
    """The same float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return spread_in(builder, values[0])

    return _lanes(types.float32), generate


@_operation
def plus_product(_: Any, total: Any, a: Any, b: Any) -> Any:
    """`total + a * b`, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call(builder, f"llvm.fmuladd.v{LANES}f32", FLOATS, [values[1], values[2], values[0]])

    return _lanes(total, a, b), generate


@_operation
def clamp(_: Any, value: Any, low: Any, high: Any) -> Any:
    """`value` between its bounds; what is not a number stays so."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return clamped(builder, *values)

    return _lanes(value, low, high), generate


@_operation
def where_between(_: Any, value: Any, low: Any, high: Any, wanted: Any) -> Any:
    """`wanted` where `value` lies strictly between its bounds, else 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value, low, high, wanted = values
        above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
        return builder.select(builder.and_(above, below), wanted, ir.Constant(FLOATS, [0.0] * LANES))

    return _lanes(value, low, high, wanted), generate
