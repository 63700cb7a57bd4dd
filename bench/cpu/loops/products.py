"""Matrix multiplication for loops compiled by numba: one tile of sums at a time, all in registers.

bfloat16 is multiplied in pairs with AVX512-BF16: one instruction adds two products to a float32 sum.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bench.cpu.loops import lanes
from bench.cpu.loops.compiled import inlined, internal
from bench.cpu.loops.lanes import LANES
from bench.device.private_interfaces import LLVM_BFLOAT16_PRODUCT

# Rows and blocks of 16 columns of a tile: the sums, a row of weights and one more value fill the registers
ROWS, BLOCKS = (10, 2) if binding.get_host_cpu_features().get("avx512f") else (6, 1)
PANEL = BLOCKS * LANES
_PAIRS_AS_INT32 = ir.VectorType(ir.IntType(32), LANES)
_ONE_ROW, _ALL_ROWS = (0,), (0,) * ROWS
_ONE_BLOCK, _ALL_BLOCKS = (0,), (0,) * BLOCKS
_intrinsic: Any = intrinsic


@_intrinsic
def _tile(
    _: Any, rows: Any, blocks: Any, a: Any, at: Any, pitch: Any, element_stride: Any, depth: Any,
    weights: Any, w: Any, bias: Any, first: Any, low: Any, high: Any, added: Any, out: Any, to: Any, out_pitch: Any,
    out_block_stride: Any, valid: Any,
) -> Any:  # fmt: skip
    """`multiply` for one tile. The lengths of the tuples are its rows and its blocks of columns.

    valid: columns to write.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        (_, _, a, at, pitch, element_stride, depth, weights, w, bias, first, low, high, added, out, to, out_pitch,
         out_block_stride, valid) = values  # fmt: skip
        kinds = signature.args
        (a_kind, weights_kind, bias_kind, added_kind, out_kind) = (kinds[i] for i in (2, 7, 9, 13, 14))
        rows_of_tile, blocks_of_tile = len(kinds[0]), len(kinds[1])

        def number(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        def advance(start: Any, steps: int, step: Any) -> Any:
            return builder.add(start, builder.mul(number(steps), step))

        data = context.make_array(a_kind)(context, builder, a).data
        bfloat16 = lanes.is_bfloat16(a_kind)
        step, kind = (2, lanes.BFLOAT16_PAIRS) if bfloat16 else (1, lanes.FLOATS)
        stride = builder.mul(element_stride, number(step))
        sums = []
        for block in range(blocks_of_tile):
            start = lanes.emit_load(context, builder, bias_kind, bias, builder.add(first, number(block * LANES)))
            sums.append([cgutils.alloca_once_value(builder, start) for _ in range(rows_of_tile)])
        with cgutils.for_range(builder, builder.udiv(depth, number(step))) as loop:
            places = [
                builder.add(w, advance(number(block * LANES * step), PANEL * step, loop.index))
                for block in range(blocks_of_tile)
            ]
            weights_row = [
                builder.load(lanes.element_pointer(context, builder, weights_kind, weights, place, kind), align=4)
                for place in places
            ]
            here = builder.add(at, builder.mul(stride, loop.index))
            for row in range(rows_of_tile):
                place = builder.gep(data, [advance(here, row, pitch)], inbounds=True)
                if bfloat16:
                    pair = builder.load(builder.bitcast(place, ir.IntType(32).as_pointer()), align=2)
                    value = builder.bitcast(lanes.emit_broadcast(builder, pair, _PAIRS_AS_INT32), lanes.BFLOAT16_PAIRS)
                else:
                    value = lanes.emit_broadcast(builder, builder.load(place))
                for block in range(blocks_of_tile):
                    total = builder.load(sums[block][row])
                    if bfloat16:
                        arguments = [total, value, weights_row[block]]
                        total = lanes.emit_call(builder, LLVM_BFLOAT16_PRODUCT, lanes.FLOATS, arguments)
                    else:
                        arguments = [weights_row[block], value, total]
                        total = lanes.emit_call(builder, f"llvm.fmuladd.v{LANES}f32", lanes.FLOATS, arguments)
                    builder.store(total, sums[block][row])
        has_added = builder.icmp_signed(">", context.make_array(added_kind)(context, builder, added).nitems, number(0))
        for block in range(blocks_of_tile):
            left = builder.sub(valid, number(block * LANES))
            mask = lanes.emit_mask(builder, builder.select(builder.icmp_signed(">", left, number(0)), left, number(0)))
            for row, total in enumerate(sums[block]):
                place = advance(advance(to, row, out_pitch), block, out_block_stride)
                builder.store(lanes.emit_clamp(builder, builder.load(total), low, high), total)
                with builder.if_then(has_added):
                    more = lanes.emit_load(context, builder, added_kind, added, place, mask)
                    builder.store(builder.fadd(builder.load(total), more), total)
                lanes.emit_store(context, builder, out_kind, out, place, builder.load(total), mask)
        return context.get_dummy_value()

    index = types.int64
    parameters = (rows, blocks, a, *[index] * 4, weights, index, bias, index, low, high, added, out, *[index] * 4)
    return types.void(*parameters), generate


@internal()
def multiply(
    rows, a, at, pitch, element_stride, depth, weights, bias, bounds, added, out, to, out_pitch, out_block_stride,
    columns,
):  # fmt: skip
    """Write `added + clamp(a @ weights + bias)` to `out`. All arrays are flat; distances are in elements.

    a and weights: both float32 or both bfloat16. bias: float32. out, added: either.
    a: `rows` rows, the first at index `at`, `pitch` apart. The `depth` elements of a row (in
        bfloat16: pairs of them) are `element_stride` apart.
    weights: (panels, depth, PANEL). In bfloat16 (panels, depth / 2, PANEL, 2), with an even depth.
    bias: (panels, PANEL). weights and bias are padded with zeros to whole panels.
    bounds: lowest and highest value of the clamp.
    out, added: rows start at index `to`, `out_pitch` apart; blocks of 16 of the `columns` are `out_block_stride` apart.
        added is empty if there is nothing to add. It may be `out` itself only if there are fewer rows than ROWS or a
        multiple of ROWS; otherwise some rows would be added twice.
    """
    for block in range(0, (columns + LANES - 1) // LANES, BLOCKS):
        w, first, valid = block * LANES * depth, block * LANES, columns - block * LANES
        out_start = to + block * out_block_stride
        if rows < ROWS:
            for row in range(rows):
                _panel(
                    _ONE_ROW, a, at + row * pitch, pitch, element_stride, depth, weights, w, bias, first,
                    bounds, added, out, out_start + row * out_pitch, out_pitch, out_block_stride, valid,
                )  # fmt: skip
        else:
            for begin in range(0, rows, ROWS):
                row = min(begin, rows - ROWS)  # the last tile may repeat rows
                _panel(
                    _ALL_ROWS, a, at + row * pitch, pitch, element_stride, depth, weights, w, bias, first,
                    bounds, added, out, out_start + row * out_pitch, out_pitch, out_block_stride, valid,
                )  # fmt: skip


@inlined()  # otherwise its arguments would go through memory for every tile
def _panel(
    rows, a, at, pitch, element_stride, depth, weights, w, bias, first, bounds, added, out, to, out_pitch,
    out_block_stride, valid,
):  # fmt: skip
    """One tile, without blocks that have no valid column."""
    low, high = lanes.broadcast(bounds[0]), lanes.broadcast(bounds[1])
    if valid > LANES:
        _tile(
            rows, _ALL_BLOCKS, a, at, pitch, element_stride, depth, weights, w, bias, first, low, high, added,
            out, to, out_pitch, out_block_stride, valid,
        )  # fmt: skip
    else:
        _tile(
            rows, _ONE_BLOCK, a, at, pitch, element_stride, depth, weights, w, bias, first, low, high, added,
            out, to, out_pitch, out_block_stride, valid,
        )  # fmt: skip
