"""Rows to make report pages of, tame and hostile."""

from dataclasses import replace

from pipeline.errors import FailureCode
from pipeline.tasks.records import (
    Answer,
    Box,
    Caption,
    MediaFacts,
    PlanFacts,
    Provenance,
    Record,
    Timings,
    WindowFacts,
)

ATTACK = (
    "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
)
MADE_BY = Provenance(model="tiny", model_digest="ab12", tasks_digest="cd34", version="0.1.0")
TIMES_S = tuple(index / 2 for index in range(8))


def timings(total_s: float) -> Timings:
    return Timings(
        plan_s=0.1,
        read_s=0.2,
        encode_s=0.3,
        prefill_s=0.4,
        generate_s=0.5,
        first_word_s=total_s / 2,
        total_s=total_s,
    )


def good_row(index: int = 0, *, text: str = "A red circle stays still.", uri: str = "") -> Record:
    """Four seconds of 200x100 video with a caption, an answer, a box at 1 s and a refusal."""
    return Record(
        video_id=f"{index:020x}",
        uri=uri or f"/videos/clip-{index:05d}.mp4",
        etag="e1",
        size_bytes=None,
        status="ok",
        coverage=1.0,
        captions=(
            Caption(start_s=0.0, end_s=4.0, window_index=0, text=text, finish_reason="stop"),
        ),
        answers=(
            Answer(
                question=f"What? {text}",
                start_s=0.0,
                end_s=4.0,
                window_index=0,
                answer=text,
                finish_reason="length",
            ),
        ),
        boxes=(
            Box(
                query=text, time_s=1.0, outcome="found", x0=50.0, y0=25.0, x1=100.0, y1=75.0, raw=""
            ),
            Box(query="the blue star", time_s=1.0, outcome="absent", raw="not there"),
        ),
        media=MediaFacts(
            container="mp4",
            codec="h264",
            pixel_format="yuv420p",
            width=200,
            height=100,
            rotation_deg=0,
            num_frames=100,
            duration_s=4.0,
            is_still=False,
        ),
        plan=PlanFacts(
            hash="ef56",
            preset="paper",
            fps=2.0,
            num_frames=8,
            num_tokens=96,
            windows=(WindowFacts(start_s=0.0, end_s=4.0, width=84, height=56, times_s=TIMES_S),),
        ),
        provenance=MADE_BY,
        timings=timings(1.0 + index % 10),
    )


def bad_row(index: int, code: FailureCode = FailureCode.TRUNCATED, *, detail: str = "") -> Record:
    return Record(
        video_id=f"bad-{index}",
        uri=f"/videos/bad-{index}.mp4",
        etag=None,
        size_bytes=None,
        status="failed",
        code=code,
        detail=detail or "half of it is there",
        provenance=MADE_BY,
        timings=timings(0.1),
    )


def hostile_rows() -> list[Record]:
    """The attack in every text that a file, a model or an operator can write."""
    row = good_row(text=ATTACK, uri=f"/videos/{ATTACK}.mp4")
    hostile = replace(
        row,
        etag=ATTACK,
        flags=(ATTACK,),
        provenance=replace(MADE_BY, model=ATTACK, model_digest=ATTACK),
    )
    return [hostile, bad_row(1, detail=ATTACK)]
