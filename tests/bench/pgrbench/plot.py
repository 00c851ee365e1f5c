"""Bars of one case's figures as an SVG drawing."""

from html import escape

from .figures import Spread

WIDTH, LABEL, VALUE = 860, 250, 110
ROW, BAR, TOP = 30, 18, 52
COLOURS = {"stock": "#8a8f98", "ours": "#2f6fb2", "cp": "#c9cdd3", "raw": "#c9cdd3", "standby": "#7fa08a",
           "none": "#c9cdd3", "delta": "#2f6fb2", "rsync": "#b98b4e"}
SECONDS = "seconds: median, and from the quickest to the slowest run"


def bars(title, rows, what=SECONDS, digits=2, unit=" s"):
    """rows: [(label, program, Spread)].  A bar to the median, a line from the smallest to the greatest value."""
    height = TOP + ROW * len(rows) + 14
    most = max((s.high for _, _, s in rows), default=1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="22" font-size="15" font-weight="bold" fill="#1c1f24">{escape(title)}</text>',
        f'<text x="16" y="40" font-size="12" fill="#5a606a">{escape(what)}</text>',
    ]
    for i, (label, program, value) in enumerate(rows):
        said = f"{value.middle:,.{digits}f}{unit}"
        parts += _row(TOP + ROW * i, (label, COLOURS[program], said), value, (WIDTH - LABEL - VALUE) / most)
    return "\n".join([*parts, "</svg>", ""])


def _row(y, words, value: Spread, scale):
    label, colour, said = words
    middle = y + ROW / 2
    end, low, high = (LABEL + number * scale for number in (value.middle, value.low, value.high))
    return [
        f'<text x="{LABEL - 10}" y="{middle + 4.5:.1f}" text-anchor="end" fill="#1c1f24">{escape(label)}</text>',
        f'<rect x="{LABEL}" y="{middle - BAR / 2:.1f}" width="{max(1.0, end - LABEL):.1f}" height="{BAR}" '
        f'fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 4:.1f}v8M{high:.1f} {middle - 4:.1f}v8" '
        'stroke="#1c1f24" stroke-width="1.2" fill="none"/>',
        f'<text x="{high + 8:.1f}" y="{middle + 4.5:.1f}" fill="#1c1f24">{said}</text>',
    ]
