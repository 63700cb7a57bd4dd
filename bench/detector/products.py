"""Products of matrices, for loops that are compiled by numba: a tile of sums at a time, all of it in registers.

What `lanes.py` says of its changes and what numba keeps is true of this file too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import binding, ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from bench.detector import lanes
from bench.detector.lanes import LANES

# Rows, and blocks of 16 columns, of a tile: its sums, a row of weights and one value more fill the registers
ROWS, BLOCKS = (10, 2) if binding.get_host_cpu_features().get("avx512f") else (6, 1)
PANEL = BLOCKS * LANES
_ONE_ROW, _ALL_ROWS = (0,), (0,) * ROWS
_operation: Any = intrinsic
_loop: Any = partial(njit, nogil=True, cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)()


@_operation
def _tile(
    _: Any, rows: Any, a: Any, at: Any, pitch: Any, depth: Any, weights: Any, w: Any, bias: Any, first: Any, low: Any,
    high: Any, added: Any, out: Any, to: Any, out_pitch: Any, out_apart: Any, inside: Any,
) -> Any:  # fmt: skip
    """`multiply` for as many rows as the tuple `rows` is long and a panel, of which `inside` columns count."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, a, at, pitch, depth, weights, w, bias, first, low, high, added, out, to, out_pitch, out_apart, inside = (
            values
        )
        kinds = signature.args
        (a_kind, weights_kind, bias_kind, added_kind, out_kind) = (kinds[i] for i in (1, 5, 7, 11, 12))
        zero, four = ir.Constant(lanes.FLOATS, [0.0] * LANES), ir.IntType(32)(4)

        def number(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        def plus(place: Any, steps: int, step: Any) -> Any:
            return builder.add(place, builder.mul(number(steps), step))

        data = context.make_array(a_kind)(context, builder, a).data
        sums = []
        for block in range(BLOCKS):
            place = lanes.address(context, builder, bias_kind, bias, builder.add(first, number(block * LANES)))
            start = builder.load(place, align=4)
            sums.append([cgutils.alloca_once_value(builder, start) for _ in range(len(kinds[0]))])
        with cgutils.for_range(builder, depth) as loop:
            line = builder.add(w, builder.mul(loop.index, number(BLOCKS * LANES)))
            places = [builder.add(line, number(block * LANES)) for block in range(BLOCKS)]
            row_of_weights = [
                builder.load(lanes.address(context, builder, weights_kind, weights, place), align=4) for place in places
            ]
            for row in range(len(kinds[0])):
                value = builder.load(builder.gep(data, [plus(builder.add(at, loop.index), row, pitch)], inbounds=True))
                value = lanes.spread_in(builder, value)
                for block in range(BLOCKS):
                    arguments = [row_of_weights[block], value, builder.load(sums[block][row])]
                    total = lanes.call(builder, f"llvm.fmuladd.v{LANES}f32", lanes.FLOATS, arguments)
                    builder.store(total, sums[block][row])
        has_more = builder.icmp_signed(">", context.make_array(added_kind)(context, builder, added).nitems, number(0))
        for block in range(BLOCKS):
            left = builder.sub(inside, number(block * LANES))
            mask = lanes.first(builder, builder.select(builder.icmp_signed(">", left, number(0)), left, number(0)))
            for row, total in enumerate(sums[block]):
                place = plus(plus(to, row, out_pitch), block, out_apart)
                builder.store(lanes.clamped(builder, builder.load(total), low, high), total)
                with builder.if_then(has_more):
                    arguments = [lanes.address(context, builder, added_kind, added, place), four, mask, zero]
                    more = lanes.call(builder, f"llvm.masked.load.v{LANES}f32.p0", lanes.FLOATS, arguments)
                    builder.store(builder.fadd(builder.load(total), more), total)
                arguments = [builder.load(total), lanes.address(context, builder, out_kind, out, place), four, mask]
                lanes.call(builder, f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), arguments)
        return context.get_dummy_value()

    whole = types.int64
    takes = (rows, a, whole, whole, whole, weights, whole, bias, whole, low, high, added, out, *[whole] * 4)
    return types.void(*takes), generate


@_loop
def multiply(
    rows, a, at, pitch, depth, weights, bias, bounds, added, out, to, out_pitch, out_apart, columns
):  # fmt: skip
    """Write `added + clamp(a @ weights + bias)` to `out`; all are flat float32.

    a: `rows` rows of `depth` values, from `at`, each `pitch` after the one before it.
    weights, bias: (panels, depth, PANEL) and (panels, PANEL), filled up with zeros. bounds: lowest and highest value of
        the clamp.
    out, added: from `to`, each row `out_pitch` after the one before it, and each 16 of its `columns` `out_apart` after
        the 16 before them. added is empty where there is nothing to add.
    """
    low, high = lanes.spread(bounds[0]), lanes.spread(bounds[1])
    for block in range(0, (columns + LANES - 1) // LANES, BLOCKS):
        w, first, inside = block * LANES * depth, block * LANES, columns - block * LANES
        there = to + block * out_apart
        if rows < ROWS:
            for row in range(rows):
                _tile(
                    _ONE_ROW, a, at + row * pitch, pitch, depth, weights, w, bias, first, low, high, added, out,
                    there + row * out_pitch, out_pitch, out_apart, inside,
                )  # fmt: skip
        else:
            for begin in range(0, rows, ROWS):
                row = min(begin, rows - ROWS)  # the last tile does some rows again
                _tile(
                    _ALL_ROWS, a, at + row * pitch, pitch, depth, weights, w, bias, first, low, high, added, out,
                    there + row * out_pitch, out_pitch, out_apart, inside,
                )  # fmt: skip
