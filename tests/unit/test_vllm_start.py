"""Why vLLM did not start is found in what its processes wrote."""

from pathlib import Path

from actors.vllm.error_log import ErrorLog

BEFORE = "ValueError: of another one, long ago\n"
TRACEBACK = """\
(EngineCore pid=76) Traceback (most recent call last):
(EngineCore pid=76)   File "gpu_worker.py", line 3, in init_device
(EngineCore pid=76)     raise ValueError(free)
(EngineCore pid=76) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
(EngineCore pid=76) [rank0] destroy_process_group() was not called
"""


def test_the_last_error_since_the_start_is_the_reason(tmp_path: Path) -> None:
    with (tmp_path / "worker.err").open("w") as log:
        print(BEFORE, file=log, flush=True)
        errors = ErrorLog.here(log.fileno())
        assert errors.last_error() is None
        print(TRACEBACK, file=log, flush=True)
        assert errors.last_error() == (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
        )


def test_where_stderr_is_no_file_there_is_no_reason_to_read() -> None:
    with open("/dev/null", "w") as log:
        assert ErrorLog.here(log.fileno()).last_error() is None
