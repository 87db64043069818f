"""Throughput over the number of cards as an SVG, both axes in powers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from jobs.lab.simulate.scale import Point

WIDTH_PX, HEIGHT_PX = 960, 560
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 64, 150, 56, 48
LABEL_PX = 14  # from one label down to the next
GRAY = "#666"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """label: at its right end. dash: of its line, as SVG has it; "" for none."""

    label: str
    colour: str
    points: Sequence[Point]
    dash: str = ""


def svg(curves: Sequence[Curve], *, title: str, limits: Sequence[tuple[float, str]]) -> str:
    """The picture. limits: videos a second that something outside allows, and what."""
    every = [point for curve in curves for point in curve.points]
    low = math.floor(math.log10(min(point.videos_per_s for point in every)))
    high = math.ceil(math.log10(max(point.videos_per_s for point in every)))
    right = math.log2(max(point.gpus for point in every))
    frame = _Frame(right=max(right, 1.0), low=low, high=max(high, low + 1))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH_PX}" height="{HEIGHT_PX}" fill="white"/>',
        f'<text x="{LEFT_PX}" y="22" font-size="15">{escape(title)}</text>',
        *frame.axes(),
        *(line for rate, what in limits for line in frame.limit(rate, what)),
        *(line for curve in curves for line in frame.curve(curve)),
        *frame.labels(curves),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Frame:
    """From cards and videos a second to pixels. low, high: powers of ten."""

    right: float
    low: int
    high: int

    def x(self, gpus: float) -> float:
        width = WIDTH_PX - LEFT_PX - RIGHT_PX
        return LEFT_PX + width * math.log2(gpus) / self.right

    def y(self, rate: float) -> float:
        height = HEIGHT_PX - TOP_PX - BOTTOM_PX
        share = (math.log10(rate) - self.low) / (self.high - self.low)
        return HEIGHT_PX - BOTTOM_PX - height * share

    def axes(self) -> Iterator[str]:
        for power in range(int(self.right) + 1):
            x = self.x(2**power)
            yield f'<path d="M{x:.1f} {TOP_PX}V{HEIGHT_PX - BOTTOM_PX}" stroke="#eee"/>'
            yield (
                f'<text x="{x:.1f}" y="{HEIGHT_PX - BOTTOM_PX + 18}" text-anchor="middle">'
                f"{2**power:,}</text>"
            )
        for power in range(self.low, self.high + 1):
            y = self.y(10.0**power)
            yield f'<path d="M{LEFT_PX} {y:.1f}H{WIDTH_PX - RIGHT_PX}" stroke="#ddd"/>'
            rate = f"{10.0**power:g}"
            yield f'<text x="{LEFT_PX - 8}" y="{y + 4:.1f}" text-anchor="end">{rate}</text>'
        middle = (LEFT_PX + WIDTH_PX - RIGHT_PX) / 2
        yield f'<text x="{middle}" y="{HEIGHT_PX - 8}" text-anchor="middle">GPUs</text>'
        yield f'<text x="{LEFT_PX - 48}" y="{TOP_PX - 10}">videos a second</text>'

    def limit(self, rate: float, what: str) -> Iterator[str]:
        y = self.y(rate)
        yield (
            f'<path d="M{LEFT_PX} {y:.1f}H{WIDTH_PX - RIGHT_PX}" stroke="{GRAY}" '
            'stroke-dasharray="2 4"/>'
        )
        yield f'<text x="{LEFT_PX + 6}" y="{y - 5:.1f}" fill="{GRAY}">{escape(what)}</text>'

    def curve(self, curve: Curve) -> Iterator[str]:
        places = [(self.x(point.gpus), self.y(point.videos_per_s)) for point in curve.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ""
        yield f'<path d="M{path}" fill="none" stroke="{curve.colour}" stroke-width="2"{dash}/>'
        for (x, y), point in zip(places, curve.points, strict=True):
            text = f"{point.gpus:,} GPUs: {point.videos_per_s:,.3g}/s, {point.bottleneck}"
            yield (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{curve.colour}">'
                f"<title>{escape(text)}</title></circle>"
            )

    def labels(self, curves: Sequence[Curve]) -> Iterator[str]:
        """At the curves' right ends, none on another."""
        ends = ((self.y(curve.points[-1].videos_per_s), curve) for curve in curves)
        lowest = -math.inf
        for y, curve in sorted(ends, key=lambda end: end[0]):
            lowest = max(y, lowest + LABEL_PX)
            yield (
                f'<text x="{self.x(curve.points[-1].gpus) + 8:.1f}" y="{lowest + 4:.1f}" '
                f'fill="{curve.colour}" stroke="white" stroke-width="4" paint-order="stroke">'
                f"{escape(curve.label)}</text>"
            )
