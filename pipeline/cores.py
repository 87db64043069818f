"""How a process shares a machine with others that compute: what its threads do, what it keeps.

torch's threads (libgomp's) spin for milliseconds at each other's end before they sleep. Where the
stages of a video share two cores, that is time taken from a stage that has work: encoding on two
threads beside another process took 2.7 times as long. Not spinning at all costs small matmuls a
fifth, for sleeping and waking.

Large tensors lie in pages of 2 MB: where a page has 4 kB, reading weights from memory waits for
page tables every few dozen rows, and a chunk's results cost a page fault each. A sum reads a
quarter more bytes per second, prefill is a tenth quicker, and memory at the peak is the same.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

CACHED_WEIGHTS = 16_000_000  # float32 ones that a processor's caches may hold
PRODUCTS_PER_THREAD = 3_000_000_000  # with less to multiply, other stages use a core better
SPIN_COUNT = "5000"  # looks before a thread sleeps, some 50 microseconds
HUGE_PAGES = "1"  # torch then asks for them, by madvise, where it allocates 2 MB or more
KEPT_KERNELS = "128"  # of oneDNN, half a megabyte each; torch itself keeps 1024


def before_torch() -> None:
    """To be called before torch is loaded, which reads these once; a user's own values stay."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", HUGE_PAGES)
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, KEPT_KERNELS)


def in_passing(call: Callable[[], T]) -> T:
    """Call it in a thread that ends, and with it the team that torch computed in there.

    libgomp gives every thread that computes a team of its own. While there are more members in all
    than cores, none spins, whether it has work or not: words took a sixth longer beside the idle
    team of the thread that had loaded the weights.
    """
    with ThreadPoolExecutor(1) as passing:
        return passing.submit(call).result()


def use_threads(most: int, *, num_weights: int, num_products: int) -> None:
    """Let this thread's next torch calls use as many cores as they keep busy, up to `most`.

    Weights that come from memory want all of them, however little is computed: for its bandwidth.
    """
    import torch  # this module is to be loaded before it

    worth = most if num_weights > CACHED_WEIGHTS else num_products // PRODUCTS_PER_THREAD
    wanted = max(1, min(most, worth))
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)
