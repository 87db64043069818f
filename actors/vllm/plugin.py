"""What vLLM calls in each of its processes, by the entry point `vllm.general_plugins`."""

import os
import select
import threading
from contextlib import suppress

from actors.vllm.leftovers import remove, shared_files

ARCHITECTURE = "VidrayQwen2VL"
ENDS_WITH_PARENT = "VIDRAY_VLLM_PARENT"  # the process whose death ends vLLM's


def register() -> None:
    """Make our model known. Nothing of vLLM's own is changed: others' models are as they were."""
    from vllm import ModelRegistry  # noqa: PLC0415 - absent where the engine is ours

    ModelRegistry.register_model(ARCHITECTURE, "actors.vllm.sliced_model:SlicedQwen2VL")
    parent = int(os.environ.get(ENDS_WITH_PARENT, "0"))
    if parent and parent != os.getpid():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(process_id: int) -> None:
    """End this process with the actor's, which may be killed outright: it would keep the GPU."""
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(process_id)], [], [])
    remove(shared_files(os.getpid()))
    os._exit(1)
