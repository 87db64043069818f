"""What a job's rows are made with, apart from the model. It stands in plan.json, for ever."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jobs.batch.job import VideoSelection
from jobs.batch.job_filter import source_filter_of
from jobs.workplace import Recipe
from pipeline.config import Sampling
from pipeline.errors import StoreCorrupt
from pipeline.limits import LimitOptions
from pipeline.settings import explain
from pipeline.store.items import Item
from pipeline.store.sources import SourceFilter
from pipeline.tasks.resolve import make_plan_options, make_sampling, make_tasks
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.libraries import Reader
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Equal methods, models and videos give equal rows. int8: as LocalModel.load explains it."""

    tasks: Tasks
    options: PlanOptions
    reader: Reader
    int8: bool
    source_filter: SourceFilter
    limits: LimitOptions = LimitOptions()  # the job's own, since they decide which videos fail

    def tasks_for(self, item: Item) -> Tasks:
        """What is asked of one video: the job's tasks and its own. BadInput if its own are bad."""
        return replace(
            self.tasks,
            asks=(*self.tasks.asks, *(Ask(question=text) for text in item.questions)),
            grounds=(*self.tasks.grounds, *(Ground(query=text) for text in item.ground)),
        )

    def to_json(self) -> str:
        """Canonical: equal methods, equal text. Limits that nobody set leave no trace."""
        content = _METHOD.dump_python(self, mode="json", exclude={"limits"})
        if limits := self.limits.model_dump(exclude_none=True):
            content["limits"] = limits
        return json.dumps(content, sort_keys=True)

    def recipe(self, checkpoint: Path) -> Recipe:
        """What a workplace is set up with."""
        return Recipe(
            checkpoint=checkpoint,
            options=self.options,
            reader=self.reader,
            int8=self.int8,
            max_new_tokens=self.tasks.sampling.max_new_tokens,
            limits=self.limits,
        )


def source_of(item: Item, *, path: Path = Path()) -> Source:
    """A planned video, whose bytes lie at `path`."""
    return Source(uri=item.uri, path=path, etag=item.etag, start_s=item.start_s, end_s=item.end_s)


def make_method(job: VideoSelection, own: Sampling) -> Method:
    """The method of a job, or of one to come. own: how the checkpoint wants to be sampled."""
    return Method(
        tasks=make_tasks(job, make_sampling(job, own)),
        options=make_plan_options(job),
        reader=job.reader,
        int8=job.int8,
        source_filter=source_filter_of(job, limit=job.limit),
        limits=job.limits,
    )


def read_method(config: str) -> Method:
    """The method in a plan. StoreCorrupt if it was not written by Method.to_json."""
    try:
        return _METHOD.validate_json(config)
    except ValidationError as error:
        raise StoreCorrupt(f"the plan's settings cannot be read: {explain(error)}") from error


_METHOD = TypeAdapter(Method)
