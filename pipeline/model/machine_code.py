"""What numba lacks: products by a processor's own instructions, and how threads see each other.

LLVM's code is put together here, each function of it a few instructions for numba to call.
Addresses are whole numbers.
"""

import hashlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import binding, ir
from numba import njit, typeof, types
from numba.core import cgutils, registry
from numba.extending import intrinsic

from pipeline.model.matrix import BLOCK

SOURCES = ("machine_code.py", "matrix.py", "word_kernels.py")  # of all that is compiled
LANES = 16  # numbers of four bytes in a register of AVX-512, which is two of AVX2
DIGITS = 2  # bytes that a number is rounded to before it is multiplied with bytes

_FEATURES = registry.cpu_target.target_context.codegen().magic_tuple()[2]
HAS_VNNI = "+avx512vnni" in _FEATURES.split(",")
binding.initialize_native_asmparser()

_LONG, _FLOAT, _BYTE, _INT = ir.IntType(64), ir.FloatType(), ir.IntType(8), ir.IntType(32)
_FAST = {"reassoc", "contract", "nsz", "arcp"}  # infinities and NaN stay what they are


def compiled(*, is_exact: bool = False, is_kept: bool = False) -> Any:
    """To machine code of this CPU, run without Python's lock.

    is_exact: sums in the order they are written in, every number rounded as it is written
    is_kept: on disk, for whoever needs it next; those it calls are part of it
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set() if is_exact else _FAST}

    def compile_it(function: Any) -> Any:
        if is_kept:  # numba names files by it, and asks of one of all our sources whether it is new
            function.__qualname__ = f"{function.__name__}_{_sources_digest()}"
        try:
            return njit(**options, cache=is_kept)(function)
        except RuntimeError:  # nowhere to keep it: neither beside the source nor in a user's cache
            return njit(**options)(function)

    return compile_it


@cache
def _sources_digest() -> str:
    folder = Path(__file__).parent
    sources = b"".join((folder / name).read_bytes() for name in SOURCES)
    return hashlib.sha256(sources).hexdigest()[:12]


def compile_for(function: Any, *arguments: Any) -> None:
    """Compile a function that is kept for such arguments now, not when somebody waits for it."""
    with suppress(OSError):  # the disk is full: it is compiled, and not kept
        function.compile(tuple(map(typeof, arguments)))


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _view(numba_type: Any, kind: Any) -> Any:
    """The numbers at an address, of carray's first argument."""

    @intrinsic
    def at(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _pointer(builder, arguments[0], kind)

        return types.CPointer(numba_type)(types.int64), generate

    return at


floats_at, ints_at, bytes_at = (
    _view(types.float32, _FLOAT),
    _view(types.int32, _INT),
    _view(types.uint8, _BYTE),
)


@intrinsic
def add_one(typing_context: Any, address: Any) -> Any:
    """One more at an address; what was written before it is seen by who reads it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        where = _pointer(builder, arguments[0], _LONG)
        builder.atomic_rmw("add", where, ir.Constant(_LONG, 1), "acq_rel")
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def look(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(builder, arguments[0], _LONG), "acquire", 8)

    return types.int64(types.int64), generate


def _loop(builder: Any, count: Any, sums: list[Any], body: Any) -> list[Any]:
    """LLVM's code for: sums = body(i, sums) for each i below count, which is at least 1."""
    before = builder.block
    repeat, after = builder.append_basic_block(), builder.append_basic_block()
    builder.branch(repeat)
    builder.position_at_end(repeat)
    index = builder.phi(_LONG)
    held = [builder.phi(start.type) for start in sums]
    new: list[Any] = body(index, held)
    following = builder.add(index, ir.Constant(_LONG, 1))
    for phi, start, end in zip(
        [index, *held], [ir.Constant(_LONG, 0), *sums], [following, *new], strict=True
    ):
        phi.add_incoming(start, before)
        phi.add_incoming(end, repeat)
    builder.cbranch(builder.icmp_signed("<", following, count), repeat, after)
    builder.position_at_end(after)
    return new


def _offset(builder: Any, address: Any, index: Any, step: int) -> Any:
    return builder.add(address, builder.mul(index, ir.Constant(_LONG, step)))


def _spread(builder: Any, number: Any) -> Any:
    """LANES times the same number."""
    nothing = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(_INT, 0))
    everywhere = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, everywhere)


def _store(builder: Any, vectors: list[Any], y: Any) -> None:
    """One after another, of LANES numbers of four bytes each."""
    for part, vector in enumerate(vectors):
        where = builder.add(y, ir.Constant(_LONG, 4 * LANES * part))
        builder.store(vector, _pointer(builder, where, vector.type), align=4)


@intrinsic
def multiply_floats(
    typing_context: Any, weight: Any, part: Any, step: Any, x: Any, y: Any, num_inputs: Any
) -> Any:
    """y[j] = the sum of x[i] * weight[i, j], of a BLOCK of outputs, float32.

    weight: of the first LANES outputs for the first input; part: bytes to the next LANES outputs;
    step: bytes to the next input.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weight, part, step, x, y, num_inputs = arguments
        vector = ir.VectorType(_FLOAT, LANES)
        kind = ir.FunctionType(vector, [vector] * 3)
        name = f"llvm.fma.v{LANES}f32"
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, name)
        starts = [weight]
        while len(starts) < BLOCK // LANES:
            starts.append(builder.add(starts[-1], part))

        def add(index: Any, sums: list[Any]) -> list[Any]:
            number = builder.load(_pointer(builder, _offset(builder, x, index, 4), _FLOAT))
            factors, passed = _spread(builder, number), builder.mul(index, step)
            rows = [
                builder.load(_pointer(builder, builder.add(start, passed), vector), align=4)
                for start in starts
            ]
            return [
                builder.call(multiply_add, [factors, row, held])
                for row, held in zip(rows, sums, strict=True)
            ]

        zeros = [ir.Constant(vector, [0.0] * LANES)] * len(starts)
        _store(builder, _loop(builder, num_inputs, zeros, add), y)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def multiply_bytes(
    typing_context: Any, first: Any, second: Any, step: Any, digits: Any, y: Any, num_fours: Any
) -> Any:
    """y[d, j] = the sum of digits[d, i] * weight[i, j], for both digits; whole numbers, int32.

    first, second: the weights of either half of a BLOCK of outputs for the first four inputs,
    (BLOCK / 2, 4) int8; step: bytes to those for the next four; digits: (DIGITS, 4 * num_fours)
    uint8, for all outputs.
    By VNNI's instruction itself: LLVM's name for it is not the same in every version. Without VNNI
    it does nothing.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if not HAS_VNNI:
            return context.get_dummy_value()
        first, second, step, digits, y, num_fours = arguments
        vector = ir.VectorType(_INT, LANES)
        parts = range(0, BLOCK // 2, LANES)
        multiply_add = ir.InlineAsm(
            ir.FunctionType(vector, [vector] * 3), "vpdpbusd $2, $1, $0", "=v,v,v,0"
        )
        width = builder.mul(num_fours, ir.Constant(_LONG, 4))
        lows_and_highs = [
            builder.add(digits, builder.mul(width, ir.Constant(_LONG, digit)))
            for digit in range(DIGITS)
        ]

        def add(index: Any, sums: list[Any]) -> list[Any]:
            passed = builder.mul(index, step)
            rows = []
            for half in (first, second):
                for part in parts:
                    where = builder.add(builder.add(half, passed), ir.Constant(_LONG, 4 * part))
                    rows.append(builder.load(_pointer(builder, where, vector), align=4))
            new = []
            for digit, address in enumerate(lows_and_highs):
                four = builder.load(_pointer(builder, _offset(builder, address, index, 4), _INT))
                factors = _spread(builder, four)
                held = sums[digit * len(rows) : (digit + 1) * len(rows)]
                for row, part_sum in zip(rows, held, strict=True):
                    new.append(builder.call(multiply_add, [factors, row, part_sum]))
            return new

        zeros = [ir.Constant(vector, [0] * LANES)] * (DIGITS * BLOCK // LANES)
        _store(builder, _loop(builder, num_fours, zeros, add), y)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


sem_post = types.ExternalFunction("sem_post", types.int32(types.int64))
sem_wait = types.ExternalFunction("sem_wait", types.int32(types.int64))
sem_trywait = types.ExternalFunction("sem_trywait", types.int32(types.int64))
sched_yield = types.ExternalFunction("sched_yield", types.int32())
