"""Which files of a listing a job takes."""

import os

from jobs.batch.job import VideoSelection
from pipeline.errors import ConfigError
from pipeline.store.sources import VIDEO_SUFFIXES, SourceFilter


def source_filter_of(job: VideoSelection, *, limit: int | None) -> SourceFilter:
    """limit: of videos, None for no bound. ConfigError where links may end nowhere at all."""
    if job.link_root and not any(map(os.path.isdir, job.link_root)):
        named = ", ".join(job.link_root)
        raise ConfigError(f"there is no folder {named}, which --link-root names")
    return SourceFilter(
        suffixes=tuple(suffix.lower() for suffix in job.suffix) or VIDEO_SUFFIXES,
        min_bytes=job.min_bytes,
        max_bytes=job.max_bytes,
        limit=limit,
        hidden=job.hidden,
        link_roots=tuple(map(os.path.realpath, job.link_root)),
    )
