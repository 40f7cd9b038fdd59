"""Lanes from and to memory: arrays, tables, and the packed formats of images.

Nothing checks bounds. Arrays are C-contiguous and indices count their elements.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import overload

from envs.houses.rendering.lanes import INTS, LANES, OF_SCALAR, emit_spread, intrinsic


def gather(array: Any, index: Any) -> Any:
    """Return the elements of a flat array at the indices."""
    return array[index]


@intrinsic
def _gather_lanes(typingctx: Any, array: Any, index: Any) -> Any:
    """Emit one load for each lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = OF_SCALAR[signature.args[0].dtype]
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        result = ir.Constant(ir.VectorType(lane.element, LANES), ir.Undefined)
        for k in range(LANES):
            place = ir.Constant(ir.IntType(32), k)
            at = builder.sext(builder.extract_element(args[1], place), ir.IntType(64))
            value = builder.load(builder.gep(data, [at]))
            result = builder.insert_element(result, value, place)
        return result

    return OF_SCALAR[array.dtype](array, index), generate


@overload(gather)
def _overload_gather(array, index):
    if index is INTS:
        return lambda array, index: _gather_lanes(array, index)
    return lambda array, index: array[index]


def _pointer(context: Any, builder: Any, array_type: Any, values: Any) -> Any:
    """Emit the address of element `values[1]` of the flat array `values[0]`, as a vector's."""
    lane = OF_SCALAR[array_type.dtype]
    array = context.make_array(array_type)(context, builder, values[0])
    address = builder.gep(array.data, [values[1]])
    return builder.bitcast(address, ir.VectorType(lane.element, LANES).as_pointer())


@intrinsic
def spread(typingctx: Any, value: Any) -> Any:
    """Repeat a scalar in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return emit_spread(builder, args[0], signature.args[0])

    return OF_SCALAR[value](value), generate


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Read `LANES` elements of a flat, contiguous array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature.args[0], args))
        value.align = 4  # the scalars' alignment is all that a flat array promises
        return value

    return OF_SCALAR[array.dtype](array, types.intp), generate


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write `LANES` elements of a flat, contiguous array from `index` on, in place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        written = builder.store(args[2], _pointer(context, builder, signature.args[0], args[:2]))
        written.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def store_bytes(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the three low bytes of each lane to a contiguous byte array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, index_type = ir.IntType(8), ir.IntType(32)
        whole = builder.bitcast(args[2], ir.VectorType(byte, 4 * LANES))
        kept = [4 * lane + n for lane in range(LANES) for n in range(3)]
        mask = ir.Constant(ir.VectorType(index_type, len(kept)), kept)
        packed = builder.shuffle_vector(whole, ir.Constant(whole.type, ir.Undefined), mask)
        address = builder.gep(data, [args[1]])
        written = builder.store(packed, builder.bitcast(address, packed.type.as_pointer()))
        written.align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def store_shorts(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the lanes as int16 to a contiguous array from `index` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        packed = builder.trunc(args[2], ir.VectorType(ir.IntType(16), LANES))
        address = builder.gep(data, [args[1]])
        written = builder.store(packed, builder.bitcast(address, packed.type.as_pointer()))
        written.align = 2
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate
