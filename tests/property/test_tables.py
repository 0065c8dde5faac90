"""A table that was cut to a terminal fits it, or nothing in it could have given more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.language.tables import NARROW_GAP, NARROWEST_COLUMN, fit_rows, table_text

heads = st.lists(
    st.sampled_from(["ID", "NAME", "IMAGE", "ERROR", "PORTS", "MODE", "CURRENT STATE", "STATUS"]),
    min_size=1,
    max_size=6,
)
cells = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@given(data=st.data(), head=heads, width=st.integers(1, 200))
def test_a_table_fits(data: st.DataObject, head: list[str], width: int) -> None:
    rows = [head, *data.draw(st.lists(st.lists(cells, min_size=len(head), max_size=len(head)), max_size=5))]
    for before, after in zip(rows, fit_rows(rows, width), strict=True):
        for whole, cell in zip(before, after, strict=True):
            assert cell == whole or (cell.endswith("…") and whole.startswith(cell[:-1]) and len(cell) < len(whole))
    text = table_text(rows, width)
    assert max(map(len, text.splitlines())) <= max(width, (NARROWEST_COLUMN + NARROW_GAP) * len(head) - NARROW_GAP)
    if max(map(len, table_text(rows).splitlines())) <= width:
        assert text == table_text(rows)
