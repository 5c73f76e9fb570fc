"""A line chart with logarithmic axes as one SVG element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 100, 48, 48
COLOURS = ("#4f8fdb", "#2a9d8f", "#e76f51", "#1f2933")
FONT = "font-family='Inter, system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif'"


def loglog(title: str, x: tuple[str, Sequence[float]], y: tuple[str, Mapping[str, Sequence[float]]]) -> str:
    """The chart of some positive series over the same x, each with its name at its end; axes span whole decades."""
    (x_title, xs), (y_title, lines) = x, y
    x_range = floor(log10(min(xs))), ceil(log10(max(xs)))
    every = [value for values in lines.values() for value in values]
    y_range = floor(log10(min(every))), ceil(log10(max(every)))

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (log10(value) - x_range[0]) / (x_range[1] - x_range[0])

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (log10(value) - y_range[0]) / (y_range[1] - y_range[0])

    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
        f"{FONT} role='img' aria-label='{escape(title, quote=True)}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
        f"<text x='{LEFT}' y='28' font-size='15' font-weight='650' fill='#1f2933'>{escape(title)}</text>",
        "<g font-size='11' fill='#616e7c' stroke-width='1'>",
    ]
    for power in range(x_range[0], x_range[1] + 1):
        at = across(10.0**power)
        parts.append(f"<path d='M{at:.1f} {TOP}V{HEIGHT - BOTTOM}' stroke='#e4e7eb'/>")
        parts.append(f"<text x='{at:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{10.0**power:,g}</text>")
    for power in range(y_range[0], y_range[1] + 1):
        at = up(10.0**power)
        parts.append(f"<path d='M{LEFT} {at:.1f}H{WIDTH - RIGHT}' stroke='#e4e7eb'/>")
        parts.append(f"<text x='{LEFT - 8}' y='{at + 4:.1f}' text-anchor='end'>{10.0**power:,g}</text>")
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    parts += [
        f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 12}' text-anchor='middle'>{escape(x_title)}</text>",
        f"<text transform='translate(18 {middle}) rotate(-90)' text-anchor='middle'>{escape(y_title)}</text></g>",
    ]
    below = 0.0
    for (name, values), colour in sorted(zip(lines.items(), COLOURS, strict=False), key=lambda item: -item[0][1][-1]):
        points = [(across(a), up(b)) for a, b in zip(xs, values, strict=True)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{a:.1f}' cy='{b:.1f}' r='3.5' fill='{colour}'/>" for a, b in points]
        below = max(below + 14, points[-1][1] + 4)  # names do not overlap
        parts.append(
            f"<text x='{points[-1][0] + 9:.1f}' y='{below:.1f}' font-size='12' fill='{colour}'>{escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>\n"])
