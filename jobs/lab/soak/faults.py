"""`vidray soak faults`: each fault befalls a job of its own, at default settings, times scaled.

In the end the rows are those of a job that nobody disturbed, or the job has stopped and goes on
when the fault is over; no innocent video has a failure row, and nothing is left behind.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from jobs.exits import Exit
from jobs.lab.soak import harms
from jobs.lab.soak.hurt_store import no_harm
from jobs.lab.soak.stage import (
    Play,
    Rows,
    Stage,
    left_behind,
    open_stage,
    play,
    undisturbed,
)
from jobs.lab.soak.trial import shared_memory
from jobs.lab.soak.two_nodes import may_hide
from jobs.models import demo_model
from pipeline.errors import ConfigError, VidrayError

TWO_DECODERS: Mapping[str, Any] = {
    "decoders": {"num_replicas": 2, "num_cpus": 0.1, "num_threads": 1, "kv_tokens": 32_768}
}
LOST_CALLS = {  # on their way to an actor, and answers on the way back, in percent
    "CoreWorkerService.grpc_client.PushTask": {
        "num_failures": -1,  # without end
        "req_failure_prob": 3,
        "resp_failure_prob": 3,
        "in_flight_failure_prob": 0,
    }
}
AGAIN = 5  # times that a stopped job is gone on with


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done to a job, and what is right then.

    own_row: the code of the one clip that is at fault itself. must_stop: the job cannot go on.
    """

    harm: Callable[[Play], None]
    in_s3: bool = False
    nodes: Literal["one", "two", "one blind"] = "one"
    profile: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    own_row: str | None = None
    must_stop: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a fault went; `wrong` is empty where every promise was kept."""

    name: str
    ends: tuple[int, ...]  # the exit codes of the job's drivers
    seconds: float
    wrong: tuple[str, ...]


FAULTS: Mapping[str, Fault] = {
    "model folder away": Fault(harm=harms.model_folder_away),
    "reload slower than patience": Fault(harm=harms.reload_slower_than_patience, must_stop=True),
    "one of two decoders dead": Fault(harm=harms.one_of_two_decoders_dead, profile=TWO_DECODERS),
    "reader killed": Fault(harm=harms.a_reader_killed),
    "403 for a while": Fault(harm=harms.forbidden_for_a_while, in_s3=True),
    "500 for a while": Fault(harm=harms.failing_for_a_while, in_s3=True),
    "500 on one key for ever": Fault(
        harm=harms.one_key_fails_for_ever, in_s3=True, own_row="source_unreadable"
    ),
    "downloads cut at half": Fault(harm=harms.downloads_cut_at_half, in_s3=True),
    "SIGKILL amid a download": Fault(harm=harms.killed_amid_a_download, in_s3=True, must_stop=True),
    "SIGTERM amid a download": Fault(
        harm=harms.terminated_amid_a_download,
        in_s3=True,
        options=(f"--grace={harms.GRACE_S}",),
        must_stop=True,
    ),
    "node lost and back": Fault(
        harm=harms.node_lost,
        nodes="two",
        profile={"decoders": {**TWO_DECODERS["decoders"], "num_cpus": 1.5}},
    ),
    "head node lost": Fault(harm=harms.head_lost, nodes="two", must_stop=True),
    "reader on a node without the files": Fault(
        harm=harms.node_without_the_files,
        nodes="one blind",
        profile={"readers": {"num_actors": 2, "num_cpus": 1.5}},
        must_stop=True,
    ),
    "S3 copies that a node does not share": Fault(
        harm=harms.node_without_the_files,
        in_s3=True,
        nodes="one blind",
        profile={"readers": {"num_actors": 2, "num_cpus": 1.5}},
        must_stop=True,
    ),
    "zygote stopped": Fault(harm=harms.zygote_stopped),
    "calls lost at 3 %": Fault(
        harm=harms.calls_lost,
        environment={"RAY_testing_rpc_failure": json.dumps(LOST_CALLS)},
    ),
}


def run_faults(
    folder: Path, *, model: Path | None, only: Collection[str], num_videos: int, scale: float
) -> int:
    """Play them, or those whose names contain one of these words; print a table."""
    chosen = {
        name: fault
        for name, fault in FAULTS.items()
        if not only or any(word in name for word in only)
    }
    if not chosen:
        raise ConfigError(f"there is no such fault; there are {', '.join(FAULTS)}")
    console = Console(highlight=False)
    outcomes = []
    with open_stage(
        folder, model=model or demo_model(), num_videos=num_videos, scale=scale
    ) as stage:
        for name, fault in chosen.items():
            if fault.nodes == "one blind" and not may_hide():
                print(f"{name}: cannot be played here: it needs a mount namespace")
                continue
            outcomes.append(_befall(stage, name, fault))
            print(f"{name}: {'; '.join(outcomes[-1].wrong) or 'as promised'}", flush=True)
    console.print(_table(outcomes))
    return Exit.FAILED if any(outcome.wrong for outcome in outcomes) else Exit.OK


def _befall(stage: Stage, name: str, fault: Fault) -> Outcome:
    expected = undisturbed(stage, in_s3=fault.in_s3)
    shared_before, started = shared_memory(), time.monotonic()
    with play(
        stage,
        name,
        in_s3=fault.in_s3,
        nodes=fault.nodes,
        profile=fault.profile,
        options=fault.options,
    ) as job:
        job.environment |= fault.environment
        wrong: list[str] = []
        ends: list[int] = []
        job.start()
        try:
            fault.harm(job)
            ends.append(job.until_over())
            ends += _gone_on_with(job, fault)
            wrong += _differences(expected, job.rows(), fault)
        except VidrayError as error:
            wrong.append(str(error))
        if fault.must_stop and ends[:1] in ([], [Exit.OK], [Exit.SOME_FAILED]):
            wrong.append("the fault did no harm")
        wrong += [f"left behind: {what}" for what in left_behind(job, shared_before)]
    return Outcome(name, tuple(ends), time.monotonic() - started, tuple(wrong))


def _gone_on_with(job: Play, fault: Fault) -> Iterator[int]:
    """The same command again until it finishes, the fault being over unless it is the job's own."""
    if job.store is not None and fault.own_row is None:
        job.store.rule = no_harm
    for _ in range(AGAIN):
        if job.driver.returncode == Exit.SOME_FAILED:
            return
        job.start()
        yield job.until_over()
    if job.driver.returncode != Exit.SOME_FAILED:
        raise VidrayError(f"it does not finish: {job.last_words()}")


def _differences(expected: Rows, rows: Rows, fault: Fault) -> Iterator[str]:
    """What is not as in an undisturbed job, but for the row that the fault makes its own."""
    if [row["uri"] for row in rows] != [row["uri"] for row in expected]:
        yield f"{len(rows)} rows of {len(expected)}"
        return
    for was, now in zip(expected, rows, strict=True):
        if fault.own_row and harms.BROKEN_CLIP in str(now["uri"]):
            if now["code"] != fault.own_row:
                yield f"{now['uri']} has {now['code']}, not {fault.own_row}"
        elif now["code"] != was["code"]:
            yield f"{now['uri']} has {now['code']}: {now['detail']}"
        elif now != was:
            yield f"{now['uri']} differs"


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(title="What befell a job", title_justify="left")
    for heading in ("fault", "exit codes", "seconds", "rows and what is left"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for each in outcomes:
        ends = ", ".join(map(str, each.ends))
        table.add_row(
            each.name, ends, f"{each.seconds:.0f}", "; ".join(each.wrong) or "as promised"
        )
    return table
