"""SVG by hand: panels of bars and of lines, for a light and a dark page."""
import math
from html import escape

STYLE = """
  .page { fill: #ffffff } text { font: 11px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 13px; font-weight: 600 } .head { font-size: 16px; font-weight: 600 }
  .muted { fill: #59636e } .grid { stroke: #d1d9e0; stroke-width: 1 } .one { stroke: #59636e; stroke-width: 1 }
  .spread { stroke: #1f2328; stroke-width: 1 }
  .ours { fill: #0969da; font-weight: 600 } .base { fill: #59636e } .peer { fill: #a6b1bd }
  .value { paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
  .line-ours { stroke: #0969da } .line-base { stroke: #59636e; stroke-dasharray: 5 3 }
  .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #e6edf3 } .muted { fill: #9198a1 }
    .grid { stroke: #30363d } .one { stroke: #9198a1 } .spread { stroke: #e6edf3 }
    .value { stroke: #0d1117 }
    .ours { fill: #4493f8 } .base { fill: #9198a1 } .peer { fill: #4d5863 }
    .line-ours { stroke: #4493f8 } .line-base { stroke: #9198a1 }
  }
"""
WIDTH, COLUMNS, GAP, TOP, ROW = 960, 3, 16, 64, 15
PANEL = (WIDTH - GAP * (COLUMNS + 1)) // COLUMNS
LABEL, VALUE = 122, 38  # what a bar leaves at its sides


def text(x, y, words, css="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(str(words))}</text>'


def line(x1, y1, x2, y2, css):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def short(value):
    """Three digits are enough to read."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{max(0, value):.2f}"


def ticks(most):
    """Round numbers from 0 to about most, five at the most."""
    step = 10.0 ** -9
    while most / step > 4:
        for factor in (2, 2.5, 2):
            step *= factor
            if most / step <= 4:
                break
    return [i * step for i in range(int(most / step + 1e-9) + 1)]


def bars(x, y, title, axis, rows, mark=None):
    """A panel of (name, css, value, low, high), in this order; mark is a line across.  What is much longer than most is
    cut, with a gap in it.  Returns its SVG and its height."""
    values = sorted(row[2] for row in rows)
    most = min(max(row[4] for row in rows), 4 * values[len(values) // 2]) * 1.02
    left, right, bottom = x + LABEL, x + PANEL - VALUE, y + 24 + ROW * len(rows)
    scale = (right - left) / most
    out = [text(x, y + 12, title, "title")]
    for tick in ticks(most):
        at = left + tick * scale
        out += [line(at, y + 20, at, bottom, "grid"), text(at, bottom + 13, f"{tick:g}", "muted", "middle")]
    if mark:
        out.append(line(left + mark * scale, y + 18, left + mark * scale, bottom, "one"))
    for i, (name, css, value, low, high) in enumerate(rows):
        top, cut = y + 23 + i * ROW, value > most
        end = left + min(value, most) * scale
        out.append(text(left - 6, top + 10, name, "ours" if css == "ours" else "", "end"))
        out.append(f'<rect x="{left:.1f}" y="{top}" width="{end - left:.1f}" height="{ROW - 4}" class="{css}"/>')
        if cut:
            out.append(f'<rect x="{end - 14:.1f}" y="{top - 1}" width="4" height="{ROW - 2}" class="page"/>')
        elif high > low:
            out.append(line(left + low * scale, top + 5.5, left + min(high, most) * scale, top + 5.5, "spread"))
        after = max(end, left + min(high, most) * scale) + 4
        out.append(text(after, top + 10, short(value), "value ours" if css == "ours" else "value"))
    out.append(text((left + right) / 2, bottom + 28, axis, "muted", "middle"))
    return out, bottom + 40 - y


def lines(x, y, title, axis, points, series):
    """A panel of lines over points, which are names at equal distances; series is a list of (css, values).  Where these
    differ by more than ten times, equal distances are equal ratios."""
    left, right, top, bottom = x + 36, x + PANEL - 16, y + 28, y + 148
    values = [v for _, line_values in series for v in line_values]
    least, most = min(values), max(values) * 1.05
    step = (right - left) / max(1, len(points) - 1)
    if least > 0 and most / least > 10:
        low, high = math.log10(least), math.log10(most)
        marks = [10.0 ** i for i in range(math.ceil(low), math.floor(high) + 1)]
    else:
        low, marks = None, ticks(most)

    def at(value):
        share = value / most if low is None else (math.log10(value) - low) / (high - low)
        return bottom - (bottom - top) * share

    out = [text(x, y + 12, title, "title")]
    for mark in marks:
        out.append(line(left, at(mark), right, at(mark), "grid"))
        out.append(text(left - 5, at(mark) + 4, f"{mark:g}", "muted", "end"))
    out += [text(left + i * step, bottom + 14, point, "muted", "middle") for i, point in enumerate(points)]
    for css, line_values in series:
        dots = [(left + i * step, at(v)) for i, v in enumerate(line_values)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in dots)
        out.append(f'<polyline points="{path}" class="line line-{css}"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" class="{css}"/>' for a, b in dots]
    out.append(text((left + right) / 2, bottom + 30, axis, "muted", "middle"))
    return out, bottom + 44 - y


def page(title, description, foot, panels):
    """A whole SVG; panels are functions of (x, y) that return their parts and height."""
    out, y = [], TOP
    for start in range(0, len(panels), COLUMNS):
        heights = []
        for column, panel in enumerate(panels[start:start + COLUMNS]):
            parts, height = panel(GAP + column * (PANEL + GAP), y)
            out += parts
            heights.append(height)
        y += max(heights) + 14
    height = y + 18
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>', f'<desc id="desc">{escape(description)}</desc>',
            f"<style>{STYLE}</style>", f'<rect class="page" width="{WIDTH}" height="{height:.0f}" rx="8"/>',
            text(GAP, 28, title, "head"), text(GAP, 47, foot, "muted")]
    return "\n".join(head + out + ["</svg>"]) + "\n"
