"""The report's section on the bars."""

from __future__ import annotations

from datetime import date

from trading_core.plots.quality import CheckRow, HeldRow, QualitySection, quality_section


def test_the_section_counts_names_and_escapes() -> None:
    held = HeldRow("A<B", date(2024, 5, 6), "missing_action", "lower & it stays")
    html = quality_section(QualitySection(1200, (CheckRow("missing_action", 3, 1, 2),), (held,), ("it cannot tell",)))
    assert "Of 1,203 bars the quality gate has set 3 aside" in html
    assert "<td>3</td><td>1</td><td>2</td>" in html
    assert "A&lt;B" in html
    assert "lower &amp; it stays" in html
    assert "2024-05-06" in html
    assert "<li>it cannot tell</li>" in html
    assert "and 1 more" not in html


def test_a_long_list_is_cut_and_says_so() -> None:
    held = tuple(HeldRow(f"S{n:03d}", date(2024, 5, 6), "unit_mixup", "x") for n in range(43))
    html = quality_section(QualitySection(10, (CheckRow("unit_mixup", 43, 0, 43),), held, ()))
    assert html.count('<th scope="row">S') == 40
    assert "and 3 more" in html


def test_clean_bars_say_so() -> None:
    html = quality_section(QualitySection(1200, (), (), ("it cannot tell",)))
    assert "has set none of 1,200 bars aside" in html
    assert "<table" not in html
