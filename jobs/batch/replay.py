"""`vidray replay`: makes one row again, in this process, and says whether it is the same."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.batch.analyst import Analyst
from jobs.batch.method import read_method
from jobs.batch.output import CommittedRow, Output, find, open_output
from jobs.batch.show import no_such_row
from jobs.exits import Exit, run_until_stopped
from jobs.models import model_folder
from jobs.printable import printable
from jobs.workplace import Workplace
from pipeline.errors import ConfigError
from pipeline.model.declared import row_flags
from pipeline.model.digest import digest
from pipeline.model_identity import ModelIdentity
from pipeline.store.archive import Archive
from pipeline.tasks.records import Record


def run(uri: str, name: str, *, model: Path | None, progress: Console) -> int:
    """Print what differs, if anything; exit code 0 only if nothing does.

    name: a video's uri, the end of it, or its id. model: the folder the job was run with.
    """
    output = open_output(uri)
    found = list(find(output.store, name))
    if not found:
        raise no_such_row(output.store, name)
    if len(found) > 1:
        which = ", ".join(entry.record.video_id for entry in found)
        raise ConfigError(f"{uri} has {len(found)} rows of {name!r}: {which}")
    (entry,) = found
    checkpoint = model_folder(model)
    made_by, given = entry.record.provenance.model_digest, digest(checkpoint)
    if given != made_by:
        raise ConfigError(
            f"the row was made by a model of digest {made_by[:16]}, {checkpoint} has {given[:16]}"
        )
    again = make_again(output, entry, checkpoint, progress)
    changes = list(differences(asdict(entry.record), asdict(again)))
    for change in changes:
        print(printable(change))
    uri = printable(entry.record.uri)
    print(f"{uri}: {f'{len(changes)} fields differ' if changes else 'identical'}")
    return Exit.FAILED if changes else Exit.OK


def make_again(output: Output, entry: CommittedRow, checkpoint: Path, progress: Console) -> Record:
    """The row as this process makes it from the plan, the source and the model."""
    method = read_method(output.plan.spec.config)
    workplace = Workplace(in_process=True)
    limits = workplace.limits(method.limits)
    with (
        workplace.opened(method.recipe(checkpoint), progress) as analyse,
        tempfile.TemporaryDirectory(prefix="vidray-") as folder,
    ):
        archive = Archive(
            s3=output.s3,
            folder=folder,
            max_bytes=limits.max_bytes,
            link_roots=method.source_filter.link_roots,
        )
        provenance = entry.record.provenance
        model = ModelIdentity(
            provenance.model,
            provenance.model_digest,
            row_flags(checkpoint),
            workplace.numerics(int8=method.int8),
        )
        analyst = Analyst(analyse, archive, method, model)
        return run_until_stopped(analyst.make_row(entry.item))


def differences(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """Every field that differs, by its path. What depends on the machine alone does not count:
    timings, and what held the decoder.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        for key in was:
            where = f"{path}.{key}" if path else key
            if where not in ("timings", "provenance.sandbox"):
                yield from differences(was[key], now[key], where)
    elif isinstance(was, tuple) and isinstance(now, tuple) and len(was) == len(now):
        for index, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif was != now:
        yield f"{path}: was {was!r}, is {now!r}"
