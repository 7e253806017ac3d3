"""Bars as SVG, without a library."""

from html import escape

COLOURS = {"gateway": "#0b6e4f", "PgBouncer": "#6b7280", "HAProxy": "#b0b7c3", "direct": "#d9dce2"}


def bars(title, lines, key):
    """One bar for each line that has a value, grouped as the table is."""
    lines = [line for line in lines if line.get(key)]
    widest = max((line[key] for line in lines), default=1)
    out, y, last = [], 50, None
    for line in lines:
        if line["what"] != last:
            y += 14
            out.append(f'<text x="20" y="{y}" font-weight="600">{escape(line["what"])}</text>')
            y += 10
            last = line["what"]
        width = 420 * line[key] / widest
        out.append(f'<text x="110" y="{y + 12}" text-anchor="end">{escape(line["way"])}</text>')
        out.append(f'<rect x="118" y="{y}" width="{width:.1f}" height="16" rx="2" fill="{COLOURS.get(line["way"], "#999")}"/>')
        out.append(f'<text x="{126 + width:.1f}" y="{y + 12}">{line[key]:.1f}</text>')
        y += 21
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 {y + 20}" font-family="system-ui, sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="white"/><text x="20" y="30" font-size="15" font-weight="600">{escape(title)}</text>'
            + "".join(out) + "</svg>\n")
