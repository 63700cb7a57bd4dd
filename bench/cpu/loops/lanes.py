"""Sixteen float32 at once, for loops that are compiled by numba.

Left to itself the compiler turns short loops into single steps rather than vectors, and asks before each longer one
whether its arrays overlap. Here a loop says what it wants: values of this type are one vector register where the
processor has such (AVX-512), else two or four, and stay in them between operations.

In memory a number is a float32, or a bfloat16 in an array of int16, since NumPy has no such type: it is widened when it
is read, and rounded to the nearest when it is written. Of uint8 it is only read. What an array holds is known when a
loop is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from bench.cpu.loops.compiled import inlined

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)


class _BFloat16(ir.Type):  # type: ignore[misc]
    """What llvmlite has no class for."""

    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


BFLOATS = ir.VectorType(_BFloat16(), LANES)
PAIRS = ir.VectorType(_BFloat16(), 2 * LANES)
_PLACES = ir.VectorType(ir.IntType(32), LANES)
_operation: Any = intrinsic


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


_lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, described: Any) -> None:
        super().__init__(manager, described, FLOATS)


def halved(array_type: Any) -> bool:
    """Whether an array holds bfloat16."""
    return bool(array_type.dtype == types.int16)


def _kind(array_type: Any) -> tuple[ir.VectorType, int]:
    """How sixteen of an array's numbers lie in memory, and the bytes of one."""
    kinds = {types.float32: (FLOATS, 4), types.int16: (BFLOATS, 2)}
    return kinds[array_type.dtype]


def address(context: Any, builder: Any, array_type: Any, array: Any, at: Any, kind: ir.Type | None = None) -> Any:
    """Where sixteen numbers begin, as a pointer to all of them; or to another `kind` of what lies there."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at], inbounds=True), (kind or _kind(array_type)[0]).as_pointer())


def read(context: Any, builder: Any, array_type: Any, array: Any, at: Any, mask: Any = None) -> Any:
    """Sixteen numbers from there, as floats; zeros where they are masked out."""
    kind, align = _kind(array_type)
    place = address(context, builder, array_type, array, at)
    if mask is None:
        value = builder.load(place, align=align)
    else:
        name = f"llvm.masked.load.v{LANES}{kind.element.intrinsic_name}.p0"
        value = call(builder, name, kind, [place, ir.IntType(32)(align), mask, ir.Constant(kind, None)])
    return builder.fpext(value, FLOATS) if kind is BFLOATS else value


def write(context: Any, builder: Any, array_type: Any, array: Any, at: Any, value: Any, mask: Any = None) -> None:
    """Sixteen floats to there, but for those that are masked out."""
    kind, align = _kind(array_type)
    place = address(context, builder, array_type, array, at)
    value = builder.fptrunc(value, BFLOATS) if kind is BFLOATS else value
    if mask is None:
        builder.store(value, place, align=align)
    else:
        name = f"llvm.masked.store.v{LANES}{kind.element.intrinsic_name}.p0"
        call(builder, name, ir.VoidType(), [value, place, ir.IntType(32)(align), mask])


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
    """The sixteen numbers of a flat array from `at`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return read(context, builder, signature.args[0], *values)

    return _lanes(array, at), generate


@_operation
def load_constant(_: Any, array: Any, at: Any) -> Any:
    """The same of a float32 array that nothing writes to while the function runs: it need not be read again."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = builder.load(address(context, builder, signature.args[0], *values), align=4)
        lanes.set_metadata("invariant.load", builder.module.add_metadata([]))
        return lanes

    return _lanes(array, at), generate


@_operation
def store(_: Any, array: Any, at: Any, lanes: Any) -> Any:
    """Write sixteen numbers to a flat array from `at`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        write(context, builder, signature.args[0], *values)
        return context.get_dummy_value()

    return types.void(array, at, lanes), generate


@_operation
def load_first(_: Any, array: Any, at: Any, count: Any) -> Any:
    """The first `count` of sixteen numbers, and zeros; of none, nothing is read."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, count = values
        return read(context, builder, signature.args[0], array, at, first(builder, count))

    return _lanes(array, at, count), generate


@_operation
def load_else(_: Any, array: Any, at: Any, count: Any, other: Any) -> Any:
    """The first `count` of sixteen numbers, and what `other` has after them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, count, other = values
        mask = first(builder, count)
        return builder.select(mask, read(context, builder, signature.args[0], array, at, mask), other)

    return _lanes(array, at, count, other), generate


@_operation
def _store_first(_: Any, array: Any, at: Any, lanes: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, lanes, count = values
        write(context, builder, signature.args[0], array, at, lanes, first(builder, count))
        return context.get_dummy_value()

    return types.void(array, at, lanes, count), generate


@inlined()
def load_up_to(array: Any, at: Any, count: Any) -> Any:
    """The first `count` of sixteen numbers, and zeros."""
    return load(array, at) if count >= LANES else load_first(array, at, count)


@inlined()
def store_up_to(array: Any, at: Any, lanes: Any, count: Any) -> None:
    """Write the first `count` of sixteen numbers, and leave what lies after them."""
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
def plus(_: Any, a: Any, b: Any) -> Any:
    """`a + b`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fadd(*values)

    return _lanes(a, b), generate


@_operation
def minus(_: Any, a: Any, b: Any) -> Any:
    """`a - b`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fsub(*values)

    return _lanes(a, b), generate


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


@_operation
def maximum(_: Any, a: Any, b: Any) -> Any:
    """The larger of two in every lane; what is not a number is passed over."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call(builder, f"llvm.maxnum.v{LANES}f32", FLOATS, list(values))

    return _lanes(a, b), generate


@_operation
def largest(_: Any, value: Any) -> Any:
    """The largest of all lanes, a float32; what is not a number is passed over."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", ir.FloatType(), list(values))

    return types.float32(value), generate
