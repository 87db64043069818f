"""From what was asked for to what the pipeline takes. ConfigError where that cannot be."""

from dataclasses import fields, replace
from typing import Any

from pipeline.config import Sampling
from pipeline.engine.constraint import Choices, Constraint, JsonSchema
from pipeline.errors import BadInput, ConfigError
from pipeline.families.qwen2_vl.sampling import QWEN2_VL
from pipeline.tasks.options import TaskOptions
from pipeline.tasks.tasks import Ask, Ground, Tasks
from pipeline.video.options import PlanOptions


def make_tasks(options: TaskOptions, sampling: Sampling) -> Tasks:
    """Everything to ask; ConfigError for what no model and no video could make right."""
    try:
        constraint = _constraint(options)
        return Tasks(
            caption="" if options.caption else None,
            asks=tuple(Ask(question=text, constraint=constraint) for text in options.ask),
            grounds=tuple(Ground(query=text, times_s=options.at) for text in options.ground),
            sampling=sampling,
        )
    except BadInput as error:
        raise ConfigError(error.detail) from error


def make_plan_options(options: TaskOptions) -> PlanOptions:
    """ConfigError if Qwen2-VL does not sample so. A job's plan keeps the limit by number."""
    limit = {"max_window_tokens": QWEN2_VL.max_window_tokens}
    chosen = PlanOptions(**limit | _chosen(options, PlanOptions))
    QWEN2_VL.check(chosen)
    return chosen


def make_sampling(options: TaskOptions, own: Sampling) -> Sampling:
    """The checkpoint's own way to sample, unless a temperature was asked for."""
    if options.temperature is not None:
        own = replace(own, top_k=0, top_p=1.0)
    return replace(own, **_chosen(options, Sampling))


def _chosen(options: TaskOptions, kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass that the options name, with or without the unit, and set."""
    named = {
        field.name: getattr(options, field.name.removesuffix("_s"), None) for field in fields(kind)
    }
    return {name: value for name, value in named.items() if value is not None}


def _constraint(options: TaskOptions) -> Constraint | None:
    if options.choices is not None:
        return Choices(options.choices)
    if options.answer_schema is not None:
        return JsonSchema(options.answer_schema)
    return None
