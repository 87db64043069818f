"""What a model said of the demo's clips, next to what is true of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from jobs.demo.demo_archive import ClipTruth
from jobs.demo.scores import SMALL_OVERLAP, Scores
from jobs.printable import printable
from pipeline.tasks.records import Record

APART = ("caption", "box", "absent")  # all other kinds of a score are questions


@dataclass(frozen=True, slots=True)
class Marked:
    """One clip's record, its truth, and how they compare."""

    truth: ClipTruth
    record: Record
    scores: Scores

    @classmethod
    def of(cls, truth: ClipTruth, record: Record) -> "Marked":
        scores = Scores()
        scores.add(truth, record)
        return cls(truth, record, scores)

    @property
    def said(self) -> str:
        """The caption as the model wrote it, or why there is none."""
        record = self.record
        if record.status == "failed":
            return printable(f"failed: {record.code}: {record.detail}")
        return printable(record.captions[0].text) if record.captions else ""

    @property
    def answers(self) -> tuple[int, int]:
        """How many questions were answered right, and how many were asked."""
        kinds = [kind for kind in self.scores.total if kind not in APART]
        return sum(self.scores.right[k] for k in kinds), sum(self.scores.total[k] for k in kinds)

    @property
    def box_overlap(self) -> float | None:
        """Intersection over union of the one box asked for; None where nothing could be seen."""
        return self.scores.overlaps[0] if self.scores.overlaps else None

    def is_right(self, kind: str) -> bool:
        return self.scores.right[kind] == self.scores.total[kind]


def make_table(marked: Sequence[Marked]) -> Table:
    """A row per clip; wrong captions with the right one below."""
    table = Table("clip", "caption", "answers", "box IoU", "absent", title=None)
    table.columns[1].overflow = "fold"  # nothing of what was said is left out
    for column in table.columns[2:]:
        column.justify = "right"
    for clip in marked:
        right, asked = clip.answers
        overlap = clip.box_overlap
        box = Text("-", "dim") if overlap is None else _figure(f"{overlap:.2f}", overlap)
        table.add_row(
            Text(clip.truth.file, no_wrap=True),
            _caption(clip),
            Text(f"{right}/{asked}", "green" if right == asked else "red"),
            box,
            _tick(clip.is_right("absent")),
        )
    table.add_section()
    right, asked = (sum(counts) for counts in zip(*(c.answers for c in marked), strict=True))
    overlaps = [clip.box_overlap for clip in marked if clip.box_overlap is not None]
    table.add_row(
        "all",
        f"{_share(marked, 'caption')} right",
        f"{right}/{asked}",
        f"{sum(overlaps) / len(overlaps):.2f}" if overlaps else "-",
        _share(marked, "absent"),
    )
    return table


def _caption(clip: Marked) -> Text:
    is_right = clip.is_right("caption")
    said = Text.assemble(_tick(is_right), " ", clip.said or Text("nothing", "dim"))
    if not is_right:
        said.append(f"\n  truth: {clip.truth.caption}", "dim")
    return said


def _tick(is_right: bool) -> Text:
    return Text("\N{CHECK MARK}", "green") if is_right else Text("\N{BALLOT X}", "red")


def _figure(text: str, overlap: float) -> Text:
    return Text(text, "green" if overlap > SMALL_OVERLAP else "red")


def _share(marked: Sequence[Marked], kind: str) -> str:
    return f"{sum(clip.is_right(kind) for clip in marked)}/{len(marked)}"
