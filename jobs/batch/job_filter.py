"""Which files of a listing a job takes."""

import os

from jobs.batch.job import VideoSelection
from pipeline.store.sources import VIDEO_SUFFIXES, SourceFilter


def source_filter_of(job: VideoSelection, *, limit: int | None) -> SourceFilter:
    """limit: of videos, None for no bound."""
    return SourceFilter(
        suffixes=tuple(suffix.lower() for suffix in job.suffix) or VIDEO_SUFFIXES,
        min_bytes=job.min_bytes,
        max_bytes=job.max_bytes,
        limit=limit,
        hidden=job.hidden,
        link_roots=tuple(map(os.path.realpath, job.link_root)),
    )
