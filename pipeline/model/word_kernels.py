"""The forward pass of one row, compiled: what a word of an answer takes when it is alone.

All weights are read once for a word, so at best it takes what memory takes to give them. Of torch's
operations, some hundred a layer, each costs microseconds however little it computes; here a layer
is four products and the attention, after each of which all threads meet, and weights come at the
memory's rate. They lie as oneDNN packs them (packed_weights.py, quantize.py).

Every thread calls `run` with its own index and writes its own share of the outputs, so sums are
taken in the same order whoever is quicker. Whoever fills the job in keeps what its addresses point
at (word_pass.py).
"""

import numpy as np
from numba import carray

from pipeline.model.machine_code import (
    DIGITS,
    LANES,
    add_one,
    bytes_at,
    compiled,
    floats_at,
    ints_at,
    look,
    multiply_bytes,
    multiply_floats,
    sched_yield,
    sem_post,
    sem_trywait,
    sem_wait,
)
from pipeline.model.matrix import BLOCK, FLOATS, INTEGERS, ROWS

QKV, O_PROJ, GATE_UP, DOWN = range(4)  # a layer's matrices, in the order they are multiplied by
PER_LAYER = 4
TILE = 128  # tokens whose scores are held at a time
MAX_PIECES = 8
WAKER_BYTES = 64  # from one thread's semaphore to the next: a cache line
MEETING_LOOKS = 4_000  # at what the others do, before other processes may have the core
IDLE_LOOKS = 20_000  # for another job, some 100 microseconds, before a thread sleeps

# As Int8Weight rounds where the CPU has VNNI.
LARGEST, ZERO, BASE = 127, 128, 256
STEPS_INVERSE = np.float32(1 / (LARGEST * BASE))
SHIFT = np.float32(INTEGERS + ZERO * BASE + ZERO)

_ADDRESS = np.int64
# A Matrix of matrix.py.
MATRIX = np.dtype(
    [
        ("kind", np.int64),
        ("num_inputs", np.int64),
        ("num_outputs", np.int64),
        ("weight", _ADDRESS),
        ("width", np.int64),
        ("bias", _ADDRESS),  # float32 for each output, or 0
        ("scale", _ADDRESS),
        ("sums", _ADDRESS),
    ]
)
# Keys and values of consecutive tokens, float32; the last piece is the one that is written to.
PIECE = np.dtype(
    [
        ("keys", _ADDRESS),  # of the first layer's first head: (length, head_dim)
        ("values", _ADDRESS),
        ("length", np.int64),
        ("head_bytes", np.int64),  # from one head to the next
        ("layer_bytes", np.int64),
    ]
)
JOB = np.dtype(
    [
        ("num_threads", np.int64),  # 0: those that wait for a job end
        ("arrivals", _ADDRESS),  # how often threads have come to meetings, of all jobs
        ("met", np.int64),  # that number before this job
        ("wakers", _ADDRESS),  # a semaphore for each thread
        ("num_layers", np.int64),
        ("hidden_size", np.int64),
        ("num_heads", np.int64),
        ("num_kv_heads", np.int64),
        ("head_dim", np.int64),
        ("squared_least", np.float32),  # hidden_size times the norms' eps
        ("x", _ADDRESS),  # the row, float32
        ("scores", _ADDRESS),  # where its scores go, room for all blocks; 0: it goes through layers
        ("cos", _ADDRESS),  # positions.py's `rotary_tables`, of the row
        ("sin", _ADDRESS),
        ("num_pieces", np.int64),
    ]
)


@compiled()
def _meet(job, meeting):
    """Go on when every thread has come to this job's meeting of that number, from 1 on."""
    everybody = job[0].met + meeting * job[0].num_threads  # before: the last may begin another job
    add_one(job[0].arrivals)
    looks = 0
    while look(job[0].arrivals) < everybody:
        looks += 1
        if looks > MEETING_LOOKS:
            sched_yield()


@compiled()
def _share(total, index, parts):
    return total * index // parts, total * (index + 1) // parts


@compiled()
def _normalise(x, weight, y, squared_least):
    """RMSNorm, as QuickNorm has its weight."""
    squares = squared_least
    for i in range(len(x)):
        squares += x[i] * x[i]
    factor = np.float32(1) / np.sqrt(squares)
    for i in range(len(x)):
        y[i] = x[i] * factor * weight[i]


@compiled(is_exact=True)
def _round(x, numbers, digits):
    """The digits of x, all low ones first, as Int8Weight rounds; returns what one step is.

    numbers: memory for as many floats.
    """
    largest, is_number = np.float32(0), True
    for i in range(len(x)):
        largest = max(largest, abs(x[i]))
        is_number &= x[i] == x[i]
    step = largest * STEPS_INVERSE if is_number else np.float32(np.nan)
    for i in range(len(x)):
        numbers[i] = SHIFT + x[i] / step
    bits = carray(ints_at(numbers.ctypes.data), len(x))
    for i in range(len(x)):
        digits[i] = bits[i] & 255
        digits[len(x) + i] = (bits[i] >> 8) & 255
    return step


@compiled(is_exact=True)
def _put_together(products, matrix, step, y, first):
    """A block's outputs y, from the first-th on, of its products with both digits, int32."""
    scale = carray(floats_at(matrix.scale + 4 * first), BLOCK)
    sums = carray(ints_at(matrix.sums + 4 * first), BLOCK)
    for i in range(BLOCK):
        low = np.float32(np.int32(products[i] - ZERO * sums[i])) * scale[i]
        high = np.float32(np.int32(products[BLOCK + i] - ZERO * sums[i])) * scale[i]
        y[i] = (low + np.float32(BASE) * high) * step


@compiled()
def _multiply(matrix, x, y, first, last, own):
    """Blocks [first, last) of W @ x + b, into their places in y. own: see `own_floats`."""
    num_inputs = matrix.num_inputs
    last_output = min(last * BLOCK, matrix.num_outputs)
    if matrix.kind == ROWS:
        for row in range(first * BLOCK, last_output):
            weight = carray(floats_at(matrix.weight + 4 * row * num_inputs), num_inputs)
            total = np.float32(0)
            for i in range(num_inputs):
                total += weight[i] * x[i]
            y[row] = total
    elif matrix.kind == FLOATS:
        for block in range(first, last):
            weight = matrix.weight + 4 * BLOCK * block * num_inputs
            part = 4 * LANES * (1 if matrix.width == BLOCK else num_inputs)
            where = y[BLOCK * block :].ctypes.data
            multiply_floats(weight, part, 4 * matrix.width, x.ctypes.data, where, num_inputs)
    else:
        digits = carray(bytes_at(own[num_inputs:].ctypes.data), DIGITS * num_inputs)
        step = _round(x[:num_inputs], own, digits)
        products = carray(ints_at(own[2 * num_inputs :].ctypes.data), DIGITS * BLOCK)
        for block in range(first, last):
            weight = matrix.weight + BLOCK * block * num_inputs
            half = weight + BLOCK // 2 * (4 if matrix.width == BLOCK else num_inputs)
            where = products.ctypes.data
            multiply_bytes(
                weight, half, 4 * matrix.width, digits.ctypes.data, where, num_inputs // 4
            )
            _put_together(products, matrix, step, y[BLOCK * block :], BLOCK * block)
    if matrix.bias:
        bias = carray(floats_at(matrix.bias), matrix.num_outputs)
        for i in range(first * BLOCK, last_output):
            y[i] += bias[i]


@compiled(is_kept=True)
def multiply(matrices, x, y, own):
    """All of the first of them, W @ x + b, by one thread; y: for all blocks."""
    num_blocks = (matrices[0].num_outputs + BLOCK - 1) // BLOCK
    _multiply(matrices[0], x, y, 0, num_blocks, own)


@compiled()
def _turn(heads, start, cos, sin, y):
    """The head that starts there, turned as positions.py's `rotate` does."""
    half = len(sin)
    for i in range(half):
        first, second = heads[start + i], heads[start + half + i]
        y[i] = first * cos[i] - second * sin[i]
        y[half + i] = second * cos[half + i] + first * sin[i]


@compiled()
def _attend(query, keys, values, num_tokens, found, scores, head_dim):
    """Take up to TILE more tokens into what some query heads found, which share keys and values.

    found: a row for each head: the sum of values by weight, the largest score yet, the sum of the
    weights, exp(score - largest). As in FlashAttention, arXiv 2205.14135.
    """
    for head in range(len(found)):
        largest = found[head, head_dim]
        for token in range(num_tokens):
            score = np.float32(0)
            for i in range(head_dim):
                score += query[head * head_dim + i] * keys[token * head_dim + i]
            scores[token] = score
            largest = max(largest, score)
        damping = np.exp(found[head, head_dim] - largest)
        total = found[head, head_dim + 1] * damping
        for i in range(head_dim):
            found[head, i] *= damping
        for token in range(num_tokens):
            weight = np.exp(scores[token] - largest)
            total += weight
            for i in range(head_dim):
                found[head, i] += weight * values[token * head_dim + i]
        found[head, head_dim] = largest
        found[head, head_dim + 1] = total


@compiled()
def _attend_part(job, pieces, layer, qkv, kv_head, part, parts, found, own):
    """What the heads that share kv_head find in one of `parts` equal parts of all tokens.

    The last part writes the row's own key and value before it reads them.
    """
    num_heads, num_kv_heads, head_dim = job[0].num_heads, job[0].num_kv_heads, job[0].head_dim
    group, num_pieces = num_heads // num_kv_heads, job[0].num_pieces
    cos, sin = carray(floats_at(job[0].cos), head_dim), carray(floats_at(job[0].sin), head_dim // 2)
    query, scores = own[TILE : TILE + group * head_dim], own[:TILE]
    factor = np.float32(1) / np.sqrt(np.float32(head_dim))
    for head in range(group):
        turned = query[head * head_dim : (head + 1) * head_dim]
        _turn(qkv, (kv_head * group + head) * head_dim, cos, sin, turned)
        for i in range(head_dim):
            turned[i] *= factor
            found[head, i] = 0
        found[head, head_dim] = -np.inf
        found[head, head_dim + 1] = 0
    num_tokens = 0
    for index in range(num_pieces):
        num_tokens += pieces[index].length
    first, last = _share(num_tokens, part, parts)
    start = 0
    for index in range(num_pieces):
        piece = pieces[index]
        place = layer * piece.layer_bytes + kv_head * piece.head_bytes
        keys = carray(floats_at(piece.keys + place), piece.length * head_dim)
        values = carray(floats_at(piece.values + place), piece.length * head_dim)
        if last == num_tokens and index == num_pieces - 1:
            at = (piece.length - 1) * head_dim
            _turn(qkv, (num_heads + kv_head) * head_dim, cos, sin, keys[at:])
            value = (num_heads + num_kv_heads + kv_head) * head_dim
            for i in range(head_dim):
                values[at + i] = qkv[value + i]
        token, end = max(first - start, 0), min(last - start, piece.length)
        while token < end:
            some, here = min(end - token, TILE), token * head_dim
            _attend(query, keys[here:], values[here:], some, found, scores, head_dim)
            token += some
        start += piece.length


@compiled()
def _join(job, found, parts, y):
    """The attention's output y (num_heads * head_dim), of what was found in all parts."""
    head_dim, group = job[0].head_dim, job[0].num_heads // job[0].num_kv_heads
    for head in range(job[0].num_heads):
        first, row = head // group * parts, head % group
        mixed = y[head * head_dim : (head + 1) * head_dim]
        largest, total = np.float32(-np.inf), np.float32(0)
        for part in range(first, first + parts):
            largest = max(largest, found[part, row, head_dim])
        mixed[:] = 0
        for part in range(first, first + parts):
            weight = np.exp(found[part, row, head_dim] - largest)
            total += weight * found[part, row, head_dim + 1]
            for i in range(head_dim):
                mixed[i] += weight * found[part, row, i]
        for i in range(head_dim):
            mixed[i] /= total


@compiled()
def _add_product(matrix, x, y, product, index, num_threads, own):
    """y += W @ x, this thread's share; product: memory for all of it."""
    first, last = _share(matrix.num_outputs // BLOCK, index, num_threads)
    _multiply(matrix, x, product, first, last, own)
    for i in range(first * BLOCK, last * BLOCK):
        y[i] += product[i]


@compiled()
def _gate(gate_up, first, last, width):
    """SwiGLU of some of the width features, in the place of the gates."""
    for i in range(first, last):
        gate = gate_up[i]
        gate_up[i] = gate / (np.float32(1) + np.exp(-gate)) * gate_up[width + i]


@compiled()
def _run_layers(job, pieces, norms, matrices, shared, found, row, own, index):
    num_threads, num_kv_heads = job[0].num_threads, job[0].num_kv_heads
    x = carray(floats_at(job[0].x), job[0].hidden_size)
    squared_least = job[0].squared_least
    parts = max(num_threads // num_kv_heads, 1)
    meeting = 0
    for layer in range(job[0].num_layers):
        qkv, o_proj, gate_up, down = (
            matrices[PER_LAYER * layer + QKV],
            matrices[PER_LAYER * layer + O_PROJ],
            matrices[PER_LAYER * layer + GATE_UP],
            matrices[PER_LAYER * layer + DOWN],
        )
        _normalise(x, norms[layer, 0], row, squared_least)
        first, last = _share(qkv.num_outputs // BLOCK, index, num_threads)
        _multiply(qkv, row, shared, first, last, own)
        meeting += 1
        _meet(job, meeting)
        for item in range(index, num_kv_heads * parts, num_threads):
            kv_head, part = item // parts, item % parts
            _attend_part(job, pieces, layer, shared, kv_head, part, parts, found[item], own)
        meeting += 1
        _meet(job, meeting)
        _join(job, found, parts, row)
        _add_product(o_proj, row, x, shared, index, num_threads, own)
        meeting += 1
        _meet(job, meeting)
        _normalise(x, norms[layer, 1], row, squared_least)
        width = down.num_inputs
        first, last = _share(width // BLOCK, index, num_threads)
        _multiply(gate_up, row, shared, first, last, own)
        _multiply(gate_up, row, shared, first + width // BLOCK, last + width // BLOCK, own)
        _gate(shared, first * BLOCK, last * BLOCK, width)
        meeting += 1
        _meet(job, meeting)
        _add_product(down, shared[:width], x, shared[width:], index, num_threads, own)
        meeting += 1
        _meet(job, meeting)


@compiled()
def _run(job, pieces, norms, matrices, shared, found, rows, owns, index):
    """This thread's share of a job, and of what the others have to be done with."""
    if job[0].scores == 0:
        _run_layers(job, pieces, norms, matrices, shared, found, rows[index], owns[index], index)
        return
    table = matrices[len(matrices) - 1]
    num_blocks = (table.num_outputs + BLOCK - 1) // BLOCK
    first, last = _share(num_blocks, index, job[0].num_threads)
    x = carray(floats_at(job[0].x), job[0].hidden_size)
    scores = carray(floats_at(job[0].scores), num_blocks * BLOCK)
    _multiply(table, x, scores, first, last, owns[index])
    _meet(job, 1)


@compiled()
def _await_job(waker):
    looks = 0
    while looks < IDLE_LOOKS and sem_trywait(waker) != 0:
        looks += 1
    if looks == IDLE_LOOKS:
        while sem_wait(waker) != 0:  # a signal may end it early
            pass


@compiled(is_kept=True)
def work(job, pieces, norms, matrices, shared, found, rows, owns, index):
    """Thread 0 leads a job: it wakes the others and returns when all is done. The others do their
    share of every job, until one has no threads.
    """
    if index == 0:
        for other in range(1, job[0].num_threads):
            sem_post(job[0].wakers + WAKER_BYTES * other)
    while True:
        if index > 0:
            _await_job(job[0].wakers + WAKER_BYTES * index)
        if job[0].num_threads > 0:
            _run(job, pieces, norms, matrices, shared, found, rows, owns, index)
        if index == 0 or job[0].num_threads == 0:
            return


def own_floats(num_inputs: int, group: int, head_dim: int) -> int:
    """Memory of a thread: numbers, digits (half as many floats) and products, or attention's."""
    return max(2 * num_inputs + DIGITS * BLOCK, TILE + group * head_dim)
