"""Docker's tables, and how one becomes narrow enough for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shoal.language.texts import ellipsis

LEAST_COLUMN = 10
COLUMN_GAP = 3
# where docker's own layout is too wide
NARROW_GAP = 2
NARROWEST_COLUMN = 4
# who gives room first: what may be long and is seldom read to its end
_LONG = frozenset(
    {
        "COMMAND", "COMMENT", "CREATED BY", "ERROR", "IMAGE", "LABELS", "MOUNTPOINT", "MOUNTS", "NAMES", "NETWORKS",
        "PORTS", "REPOSITORY", "TAG",
    }
)  # fmt: skip
# who gives room last: what other commands are told
_KEPT = frozenset({"CONTAINER ID", "HOSTNAME", "ID", "IMAGE ID", "NAME", "NETWORK ID", "NODE ID", "VOLUME NAME"})

Paint = Callable[[int, str], str]


def table_text(rows: Sequence[Sequence[str]], width: int | None = None, paint: Paint | None = None) -> str:
    """Write rows as Docker's tables: columns at least 10 wide with a gap of 3, the last one not filled.

    Args:
        rows: the heads first.
        width: of the terminal, in characters: a wider table is put together closer, and cut; None to cut nothing.
        paint: gives a cell of a column its colour; it takes no room.
    """
    if not rows:
        return ""
    gap, least = COLUMN_GAP, LEAST_COLUMN
    if width is not None and _line_width(_widths(rows), gap, least) > width:
        rows, gap, least = fit_rows(rows, width), NARROW_GAP, 0
    widths = [max(least, gap + each) for each in _widths(rows)]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            (paint(column, cell) if paint is not None and number else cell) + " " * (widths[column] - len(cell))
            for column, cell in enumerate(row)
        ]
        lines.append("".join(cells[:-1]) + cells[-1].removesuffix(" " * (widths[-1] - len(row[-1]))))
    return "\n".join(lines) + "\n"


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def _line_width(widths: Sequence[int], gap: int, least: int) -> int:
    return sum(max(least, gap + each) for each in widths[:-1]) + widths[-1]


def fit_rows(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Cut cells, with a mark, until no line is wider than `width` with narrow gaps, or no column can give more.

    Long texts give first, then what is neither an id nor a name, then heads that are wider than what stands under
    them; ids and names give last. Of those whose turn it is the widest column gives.
    """
    widths = _widths(rows)
    excess = _line_width(widths, NARROW_GAP, 0) - width
    for least in _turns(rows):
        while excess > 0:
            giving = [column for column in least if widths[column] > least[column]]
            if not giving:
                break
            widths[max(giving, key=widths.__getitem__)] -= 1
            excess -= 1
    return [[ellipsis(cell, most) for cell, most in zip(row, widths, strict=True)] for row in rows]


def _turns(rows: Sequence[Sequence[str]]) -> list[dict[int, int]]:
    """Return who gives in turn, each with the width it keeps."""
    heads = dict(enumerate(rows[0]))
    under = _widths(rows[1:]) if len(rows) > 1 else [0] * len(heads)
    whole_heads = {column: max(NARROWEST_COLUMN, len(head)) for column, head in heads.items()}
    whole_cells = {column: max(NARROWEST_COLUMN, under[column]) for column in heads}
    long = {column for column, head in heads.items() if head in _LONG}
    kept = {column for column, head in heads.items() if head in _KEPT}
    others = heads.keys() - long - kept
    return [
        {column: whole_heads[column] for column in long},
        {column: whole_heads[column] for column in others},
        {column: whole_cells[column] for column in long | others},
        {column: whole_heads[column] for column in kept},
        dict.fromkeys(heads, NARROWEST_COLUMN),
    ]
