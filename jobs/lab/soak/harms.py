"""What may befall a job: each finds it just started, and returns when the harm is over."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.lab.soak.hurt_store import Harm, HurtStore, no_harm
from jobs.lab.soak.stage import Play
from jobs.lab.soak.two_nodes import Nodes
from pipeline.errors import VidrayError

BROKEN_CLIP = "clip-0001.mp4"  # the one that the store refuses for ever
GRACE_S = 5.0


def model_folder_away(job: Play) -> None:
    """For a short while, in which a decoder starts again."""
    job.until("video")
    with _model_away(job):
        job.kill_decoder()
        time.sleep(0.5 * job.stage.stall_s)


def reload_slower_than_patience(job: Play) -> None:
    job.until("video")
    with _model_away(job):
        job.kill_decoder()
        job.until_over()


def one_of_two_decoders_dead(job: Play) -> None:
    """It never comes back: the other one does all that is left."""
    job.until("video")
    with _model_away(job):
        job.kill_decoder()
        job.until_over()


def forbidden_for_a_while(job: Play) -> None:
    _hurt_for_a_while(job, "deny")


def failing_for_a_while(job: Play) -> None:
    _hurt_for_a_while(job, "fail")


def one_key_fails_for_ever(job: Play) -> None:
    _store(job).rule = lambda method, path: (
        "fail" if _is_clip(method, path) and BROKEN_CLIP in path else None
    )
    job.until_over()


def downloads_cut_at_half(job: Play) -> None:
    """Each one once."""
    seen: set[str] = set()

    def rule(method: str, path: str) -> Harm | None:
        if not _is_clip(method, path) or path in seen:
            return None
        seen.add(path)
        return "cut"

    _store(job).rule = rule
    job.until_over()


def killed_amid_a_download(job: Play) -> None:
    _stall_a_download(job)
    job.driver.kill()
    job.driver.wait()


def terminated_amid_a_download(job: Play) -> None:
    """It has the least grace that there is, in which it has to end."""
    _stall_a_download(job)
    job.driver.send_signal(signal.SIGTERM)
    started = time.monotonic()
    job.until_over()
    if (seconds := time.monotonic() - started) > GRACE_S + 1:
        raise VidrayError(f"it ended {seconds:.0f} s after SIGTERM and --grace {GRACE_S:g}")


def zygote_stopped(job: Play) -> None:
    """SIGSTOP: it answers nobody, and its end is not seen."""
    job.until("video")
    job.wait(lambda: bool(job.processes("zygote_process")), "there is no zygote")
    # The oldest: those that it has forked are called alike.
    min(job.processes("zygote_process"), key=lambda each: each.create_time()).suspend()
    job.until_over()


def calls_lost(job: Play) -> None:
    """Of Ray's actor calls and of their answers, three in a hundred."""
    job.until_over()


def a_reader_killed(job: Play) -> None:
    job.until("video")
    job.processes("FrameReader")[0].kill()
    job.until_over()


def node_lost(job: Play) -> None:
    """With a decoder on it; it comes back after a quarter of the patience."""
    job.until("video")
    _nodes(job).lose_other()
    time.sleep(0.25 * job.stage.patience_s)
    _nodes(job).start_other()
    job.until_over()


def head_lost(job: Play) -> None:
    """The job dies with it, and goes on in the cluster that is started in its place."""
    job.until("part")
    _nodes(job).stop()
    job.until_over()
    _nodes(job).start_head()
    _nodes(job).start_other()


def node_without_the_files(job: Play) -> None:
    """A reader on it sees an empty folder; once it has left, the job goes on without it."""
    job.until_over()
    if "does not see" not in job.last_words():
        raise VidrayError(f"it does not say what is wrong: {job.last_words()}")
    _nodes(job).lose_other()
    job.options = (*job.options, f"--profile={job.stage.profile()}")


@contextmanager
def _model_away(job: Play) -> Iterator[None]:
    away = job.stage.model.rename(job.stage.model.with_name("model-away"))
    try:
        yield
    finally:
        away.rename(job.stage.model)


def _hurt_for_a_while(job: Play, harm: Harm) -> None:
    """All objects of the archive, for half of the patience."""
    job.until("video")
    _store(job).rule = lambda method, path: harm if _is_clip(method, path) else None
    time.sleep(0.5 * job.stage.patience_s)
    _store(job).rule = no_harm
    job.until_over()


def _stall_a_download(job: Play) -> None:
    job.until("video")
    store = _store(job)
    store.rule = lambda method, path: "stall" if _is_clip(method, path) else None
    job.wait(lambda: store.num_hurt > 0, "no download has begun")


def _is_clip(method: str, path: str) -> bool:
    return method == "GET" and "/clips/" in path


def _store(job: Play) -> HurtStore:
    if job.store is None:
        raise VidrayError("this fault is one of a store's")
    return job.store


def _nodes(job: Play) -> Nodes:
    if job.nodes is None:
        raise VidrayError("this fault is one of a cluster's")
    return job.nodes
