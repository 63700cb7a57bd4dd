"""Vectors of 16 float32 for loops compiled by numba.

LLVM's auto-vectoriser leaves short loops scalar, and checks before each longer one whether its arrays overlap. With
these operations a loop uses vectors explicitly. A vector is one register with AVX-512, otherwise two or four, and stays
in registers between operations.

In memory an element is float32, or bfloat16 as int16, since NumPy has no bfloat16. A bfloat16 is widened when loaded
and rounded to nearest when stored. The array's dtype decides this at compile time.
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
    """LLVM's bfloat type, for which llvmlite has no class."""

    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


BFLOAT16S = ir.VectorType(_BFloat16(), LANES)
BFLOAT16_PAIRS = ir.VectorType(_BFloat16(), 2 * LANES)
_INDICES = ir.VectorType(ir.IntType(32), LANES)
_intrinsic: Any = intrinsic


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


_vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, described: Any) -> None:
        super().__init__(manager, described, FLOATS)


def is_bfloat16(array_type: Any) -> bool:
    """Whether an array holds bfloat16."""
    return bool(array_type.dtype == types.int16)


def _memory_type(array_type: Any) -> tuple[ir.VectorType, int]:
    """The type of 16 elements of an array in memory, and the bytes of one element."""
    kinds = {types.float32: (FLOATS, 4), types.int16: (BFLOAT16S, 2)}
    return kinds[array_type.dtype]


def element_pointer(
    context: Any, builder: Any, array_type: Any, array: Any, at: Any, kind: ir.Type | None = None
) -> Any:
    """A pointer to the 16 elements from index `at`, or to a value of type `kind` there."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at], inbounds=True), (kind or _memory_type(array_type)[0]).as_pointer())


def emit_load(context: Any, builder: Any, array_type: Any, array: Any, at: Any, mask: Any = None) -> Any:
    """Load 16 elements as float32; lanes that are masked out are 0."""
    kind, align = _memory_type(array_type)
    pointer = element_pointer(context, builder, array_type, array, at)
    if mask is None:
        value = builder.load(pointer, align=align)
    else:
        name = f"llvm.masked.load.v{LANES}{kind.element.intrinsic_name}.p0"
        value = emit_call(builder, name, kind, [pointer, ir.IntType(32)(align), mask, ir.Constant(kind, None)])
    return builder.fpext(value, FLOATS) if kind is BFLOAT16S else value


def emit_store(context: Any, builder: Any, array_type: Any, array: Any, at: Any, value: Any, mask: Any = None) -> None:
    """Store 16 float32, except lanes that are masked out."""
    kind, align = _memory_type(array_type)
    pointer = element_pointer(context, builder, array_type, array, at)
    value = builder.fptrunc(value, BFLOAT16S) if kind is BFLOAT16S else value
    if mask is None:
        builder.store(value, pointer, align=align)
    else:
        name = f"llvm.masked.store.v{LANES}{kind.element.intrinsic_name}.p0"
        emit_call(builder, name, ir.VoidType(), [value, pointer, ir.IntType(32)(align), mask])


def emit_broadcast(builder: Any, value: Any, kind: ir.VectorType = FLOATS) -> Any:
    """A scalar in every lane."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_INDICES, [0] * LANES))


def emit_mask(builder: Any, count: Any) -> Any:
    """The mask of the first `count` lanes."""
    indices = ir.Constant(_INDICES, list(range(LANES)))
    return builder.icmp_unsigned("<", indices, emit_broadcast(builder, builder.trunc(count, ir.IntType(32)), _INDICES))


def emit_call(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def emit_clamp(builder: Any, value: Any, low: Any, high: Any) -> Any:
    value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
    return builder.select(builder.fcmp_ordered(">", value, high), high, value)


@_intrinsic
def load(_: Any, array: Any, at: Any) -> Any:
    """Load 16 elements of a flat array from index `at`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit_load(context, builder, signature.args[0], *values)

    return _vector(array, at), generate


@_intrinsic
def load_constant(_: Any, array: Any, at: Any) -> Any:
    """Load from a float32 array that nothing writes to while the function runs, so the compiler may reuse the load."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value = builder.load(element_pointer(context, builder, signature.args[0], *values), align=4)
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    return _vector(array, at), generate


@_intrinsic
def store(_: Any, array: Any, at: Any, value: Any) -> Any:
    """Store 16 elements to a flat array from index `at`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        emit_store(context, builder, signature.args[0], *values)
        return context.get_dummy_value()

    return types.void(array, at, value), generate


@_intrinsic
def load_masked(_: Any, array: Any, at: Any, count: Any) -> Any:
    """Load the first `count` of 16 elements, and zeros for the rest, without reading beyond them."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, count = values
        return emit_load(context, builder, signature.args[0], array, at, emit_mask(builder, count))

    return _vector(array, at, count), generate


@_intrinsic
def load_masked_or(_: Any, array: Any, at: Any, count: Any, other: Any) -> Any:
    """Load the first `count` of 16 elements; the other lanes come from `other`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, count, other = values
        mask = emit_mask(builder, count)
        return builder.select(mask, emit_load(context, builder, signature.args[0], array, at, mask), other)

    return _vector(array, at, count, other), generate


@_intrinsic
def _store_masked(_: Any, array: Any, at: Any, value: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, at, value, count = values
        emit_store(context, builder, signature.args[0], array, at, value, emit_mask(builder, count))
        return context.get_dummy_value()

    return types.void(array, at, value, count), generate


@inlined()
def load_partial(array: Any, at: Any, count: Any) -> Any:
    """Load the first `count` of 16 elements, and zeros for the rest; count may exceed 16."""
    return load(array, at) if count >= LANES else load_masked(array, at, count)


@inlined()
def store_partial(array: Any, at: Any, value: Any, count: Any) -> None:
    """Store the first `count` of 16 elements; count may exceed 16."""
    if count >= LANES:
        store(array, at, value)
    else:
        _store_masked(array, at, value, count)


@_intrinsic
def broadcast(_: Any, value: Any) -> Any:
    """A float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit_broadcast(builder, values[0])

    return _vector(types.float32), generate


@_intrinsic
def add(_: Any, a: Any, b: Any) -> Any:
    """`a + b`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fadd(*values)

    return _vector(a, b), generate


@_intrinsic
def subtract(_: Any, a: Any, b: Any) -> Any:
    """`a - b`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fsub(*values)

    return _vector(a, b), generate


@_intrinsic
def multiply_add(_: Any, total: Any, a: Any, b: Any) -> Any:
    """`total + a * b`, rounded once if the processor has fused multiply-add."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit_call(builder, f"llvm.fmuladd.v{LANES}f32", FLOATS, [values[1], values[2], values[0]])

    return _vector(total, a, b), generate


@_intrinsic
def clamp(_: Any, value: Any, low: Any, high: Any) -> Any:
    """`value` limited to its bounds; NaN stays NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit_clamp(builder, *values)

    return _vector(value, low, high), generate


@_intrinsic
def select_between(_: Any, value: Any, low: Any, high: Any, selected: Any) -> Any:
    """`selected` where `value` lies strictly between its bounds, otherwise 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        value, low, high, selected = values
        above, below = builder.fcmp_ordered(">", value, low), builder.fcmp_ordered("<", value, high)
        return builder.select(builder.and_(above, below), selected, ir.Constant(FLOATS, [0.0] * LANES))

    return _vector(value, low, high, selected), generate


@_intrinsic
def maximum(_: Any, a: Any, b: Any) -> Any:
    """The elementwise maximum, ignoring NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit_call(builder, f"llvm.maxnum.v{LANES}f32", FLOATS, list(values))

    return _vector(a, b), generate


@_intrinsic
def reduce_max(_: Any, value: Any) -> Any:
    """The maximum of all lanes as a float32, ignoring NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit_call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", ir.FloatType(), list(values))

    return types.float32(value), generate
