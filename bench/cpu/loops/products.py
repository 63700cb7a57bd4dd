"""Products of matrices, for loops that are compiled by numba: a tile of sums at a time, all of it in registers.

Of bfloat16 a processor with AVX512-BF16 multiplies two neighbours of a row by two of a column, and adds both to a sum
in float32.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from bench.cpu.loops import lanes
from bench.cpu.loops.compiled import inlined, inner
from bench.cpu.loops.lanes import LANES
from bench.device.private_interfaces import LLVM_BFLOAT16_PRODUCT

# Rows, and blocks of 16 columns, of a tile: its sums, a row of weights and one value more fill the registers
ROWS, BLOCKS = (10, 2) if binding.get_host_cpu_features().get("avx512f") else (6, 1)
PANEL = BLOCKS * LANES
_PAIRS_AS_WHOLE = ir.VectorType(ir.IntType(32), LANES)
WHOLE = (0,)  # what is multiplied is of one piece
_ONE_ROW, _ALL_ROWS = (0,), (0,) * ROWS
_ONE_BLOCK, _ALL_BLOCKS = (0,), (0,) * BLOCKS
_operation: Any = intrinsic


@_operation
def _tile(
    _: Any, rows: Any, blocks: Any, pieces: Any, a: Any, at: Any, pitch: Any, along: Any, apart: Any, depth: Any,
    weights: Any, w: Any, bias: Any, first: Any, low: Any, high: Any, added: Any, out: Any, to: Any, out_pitch: Any,
    out_apart: Any, inside: Any,
) -> Any:  # fmt: skip
    """`multiply` for as many rows, blocks of a panel and pieces as the tuples are long; `inside` columns count."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        (_, _, _, a, at, pitch, along, apart, depth, weights, w, bias, first, low, high, added, out, to, out_pitch,
         out_apart, inside) = values  # fmt: skip
        kinds = signature.args
        (a_kind, weights_kind, bias_kind, added_kind, out_kind) = (kinds[i] for i in (3, 9, 11, 15, 16))
        rows_of_tile, blocks_of_tile, pieces_of_row = (len(kinds[i]) for i in range(3))

        def number(value: int) -> Any:
            return ir.Constant(ir.IntType(64), value)

        def plus(place: Any, steps: int, step: Any) -> Any:
            return builder.add(place, builder.mul(number(steps), step))

        data = context.make_array(a_kind)(context, builder, a).data
        halved = lanes.halved(a_kind)
        step, kind = (2, lanes.PAIRS) if halved else (1, lanes.FLOATS)
        stride = builder.mul(along, number(step))
        sums = []
        for block in range(blocks_of_tile):
            start = lanes.read(context, builder, bias_kind, bias, builder.add(first, number(block * LANES)))
            sums.append([cgutils.alloca_once_value(builder, start) for _ in range(rows_of_tile)])
        for piece in range(pieces_of_row):
            from_ = plus(at, piece, apart)
            line = plus(w, piece * PANEL, depth)
            with cgutils.for_range(builder, builder.udiv(depth, number(step))) as loop:
                places = [
                    builder.add(line, plus(number(block * LANES * step), PANEL * step, loop.index))
                    for block in range(blocks_of_tile)
                ]
                row_of_weights = [
                    builder.load(lanes.address(context, builder, weights_kind, weights, place, kind), align=4)
                    for place in places
                ]
                here = builder.add(from_, builder.mul(stride, loop.index))
                for row in range(rows_of_tile):
                    place = builder.gep(data, [plus(here, row, pitch)], inbounds=True)
                    if halved:
                        pair = builder.load(builder.bitcast(place, ir.IntType(32).as_pointer()), align=2)
                        value = builder.bitcast(lanes.spread_in(builder, pair, _PAIRS_AS_WHOLE), lanes.PAIRS)
                    else:
                        value = lanes.spread_in(builder, builder.load(place))
                    for block in range(blocks_of_tile):
                        total = builder.load(sums[block][row])
                        if halved:
                            arguments = [total, value, row_of_weights[block]]
                            total = lanes.call(builder, LLVM_BFLOAT16_PRODUCT, lanes.FLOATS, arguments)
                        else:
                            arguments = [row_of_weights[block], value, total]
                            total = lanes.call(builder, f"llvm.fmuladd.v{LANES}f32", lanes.FLOATS, arguments)
                        builder.store(total, sums[block][row])
        has_more = builder.icmp_signed(">", context.make_array(added_kind)(context, builder, added).nitems, number(0))
        for block in range(blocks_of_tile):
            left = builder.sub(inside, number(block * LANES))
            mask = lanes.first(builder, builder.select(builder.icmp_signed(">", left, number(0)), left, number(0)))
            for row, total in enumerate(sums[block]):
                place = plus(plus(to, row, out_pitch), block, out_apart)
                builder.store(lanes.clamped(builder, builder.load(total), low, high), total)
                with builder.if_then(has_more):
                    more = lanes.read(context, builder, added_kind, added, place, mask)
                    builder.store(builder.fadd(builder.load(total), more), total)
                lanes.write(context, builder, out_kind, out, place, builder.load(total), mask)
        return context.get_dummy_value()

    whole = types.int64
    takes = (rows, blocks, pieces, a, *[whole] * 5, weights, whole, bias, whole, low, high, added, out, *[whole] * 4)
    return types.void(*takes), generate


@_operation
def store_rows(_: Any, rows: Any, at: Any, width: Any, first: Any, upper: Any, lower: Any) -> Any:
    """Write two rows `width` wide, the first from `at`: 16 columns from `first`, of bfloat16 in pairs of a column."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        rows, at, width, first, upper, lower = values
        kind = signature.args[0]
        if lanes.halved(kind):
            mixed = [place for lane in range(LANES) for place in (lane, LANES + lane)]
            pairs = builder.shuffle_vector(
                builder.fptrunc(upper, lanes.BFLOATS),
                builder.fptrunc(lower, lanes.BFLOATS),
                ir.Constant(ir.VectorType(ir.IntType(32), 2 * LANES), mixed),
            )
            place = builder.add(at, builder.mul(first, ir.Constant(ir.IntType(64), 2)))
            builder.store(pairs, lanes.address(context, builder, kind, rows, place, lanes.PAIRS), align=2)
        else:
            place = builder.add(at, first)
            lanes.write(context, builder, kind, rows, place, upper)
            lanes.write(context, builder, kind, rows, builder.add(place, width), lower)
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64, types.int64, upper, lower), generate


@inner()
def multiply(
    pieces, rows, a, at, pitch, along, apart, depth, weights, bias, bounds, added, out, to, out_pitch, out_apart,
    columns,
):  # fmt: skip
    """Write `added + clamp(a @ weights + bias)` to `out`; all are flat.

    a and weights are both float32 or both bfloat16, the bias is float32, out and added may be either.
    a: `rows` rows, each of as many pieces of `depth` values as the tuple `pieces` is long; from `at`, each row `pitch`
        after the one before it, and each piece of a row `apart` after the one before it. Neighbouring
        values of a piece, or of bfloat16 neighbouring pairs, are `along` values or pairs apart: 1 is side by side.
    weights: (panels, pieces, depth, PANEL), or of bfloat16, of which the depth is even, (panels, pieces, depth / 2,
        PANEL, 2). bias: (panels, PANEL). Both are filled up with zeros. bounds: lowest and highest value of the clamp.
    out, added: from `to`, each row `out_pitch` after the one before it, and each 16 of its `columns` `out_apart` after
        the 16 before them. added is empty where there is nothing to add. It may be `out` itself where the rows are
        fewer than ROWS, or a multiple of it; of others some would be added twice.
    """
    for block in range(0, (columns + LANES - 1) // LANES, BLOCKS):
        w, first, inside = block * LANES * depth * len(pieces), block * LANES, columns - block * LANES
        there = to + block * out_apart
        if rows < ROWS:
            for row in range(rows):
                _panel(
                    _ONE_ROW, pieces, a, at + row * pitch, pitch, along, apart, depth, weights, w, bias, first,
                    bounds, added, out, there + row * out_pitch, out_pitch, out_apart, inside,
                )  # fmt: skip
        else:
            for begin in range(0, rows, ROWS):
                row = min(begin, rows - ROWS)  # the last tile does some rows again
                _panel(
                    _ALL_ROWS, pieces, a, at + row * pitch, pitch, along, apart, depth, weights, w, bias, first,
                    bounds, added, out, there + row * out_pitch, out_pitch, out_apart, inside,
                )  # fmt: skip


@inlined()  # its many arguments would go through memory for every tile
def _panel(
    rows, pieces, a, at, pitch, along, apart, depth, weights, w, bias, first, bounds, added, out, to, out_pitch,
    out_apart, inside,
):  # fmt: skip
    """A tile, without the blocks of its panel in which nothing counts."""
    low, high = lanes.spread(bounds[0]), lanes.spread(bounds[1])
    if inside > LANES:
        _tile(
            rows, _ALL_BLOCKS, pieces, a, at, pitch, along, apart, depth, weights, w, bias, first, low, high, added,
            out, to, out_pitch, out_apart, inside,
        )  # fmt: skip
    else:
        _tile(
            rows, _ONE_BLOCK, pieces, a, at, pitch, along, apart, depth, weights, w, bias, first, low, high, added,
            out, to, out_pitch, out_apart, inside,
        )  # fmt: skip
