"""Right and wrong, counted by kind of question."""

from collections import defaultdict
from dataclasses import dataclass, field

from jobs.demo.demo_archive import BoxTruth, ClipTruth
from jobs.demo.questions import NOT_THERE
from jobs.demo.world import Box
from pipeline.tasks.records import Box as FoundBox
from pipeline.tasks.records import Record

SMALL_OVERLAP = 0.5


@dataclass(slots=True)
class Scores:
    """Counts over clips; shares are computed when asked for."""

    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    overlaps: list[float] = field(default_factory=list)
    mistakes: list[tuple[str, str, str, str]] = field(default_factory=list)

    def count(self, kind: str, *, said: str, truth: str, about: str) -> None:
        self.total[kind] += 1
        if said == truth:
            self.right[kind] += 1
        else:
            self.mistakes.append((about, kind, truth, said))

    def add(self, truth: ClipTruth, record: Record) -> None:
        """Compare one clip's record with its truth."""
        said = record.captions[0].text if record.captions else str(record.code)
        self.count("caption", said=said, truth=truth.caption, about=truth.file)
        answers = {answer.question: answer.answer for answer in record.answers}
        for question in truth.questions:
            said = answers.get(question.text, "")
            self.count(question.kind, said=said, truth=question.answer, about=truth.file)
        for box in truth.boxes:
            rows = [row for row in record.boxes if row.query == box.query]
            self._add_box(box, rows, about=truth.file)

    def _add_box(self, truth: BoxTruth, rows: list[FoundBox], *, about: str) -> None:
        if truth.box is None:  # a row without a box may still be babble: the words count
            said = " ".join(row.raw.strip() for row in rows)
            self.count("absent", said=said, truth=NOT_THERE, about=about)
            return
        found = [row for row in rows if row.outcome == "found"]
        overlap = max((overlap_of(corners(box), truth.box) for box in found), default=0.0)
        self.overlaps.append(overlap)
        self.total["box"] += 1
        self.right["box"] += overlap > SMALL_OVERLAP

    def share(self, kind: str) -> float:
        return self.right[kind] / self.total[kind] if self.total[kind] else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """Captions, answers over all kinds and the worst kind, boxes, refusals, and each kind."""
        apart = ("caption", "box", "absent")
        kinds = sorted(kind for kind in self.total if kind not in apart)
        asked = sum(self.total[kind] for kind in kinds)
        return {
            "caption": self.share("caption"),
            "answers": sum(self.right[kind] for kind in kinds) / max(asked, 1),
            "worst_kind": min((self.share(kind) for kind in kinds), default=0.0),
            "mean_iou": sum(self.overlaps) / max(len(self.overlaps), 1),
            "iou_over_half": self.share("box"),
            "absent_refused": self.share("absent"),
            **{kind: self.share(kind) for kind in kinds},
        }


def corners(box: FoundBox) -> Box:
    if box.x0 is None or box.y0 is None or box.x1 is None or box.y1 is None:
        raise ValueError(f"no corners in a box that was not found: {box}")
    return box.x0, box.y0, box.x1, box.y1


def overlap_of(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0
