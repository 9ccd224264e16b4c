"""The page of an ablation: every variant, the differences with their errors, and nothing that a text could inject."""

from __future__ import annotations

import json
import math
import re

import pytest

from trading_core.plots.ablation import AblationRow, ablation_page, difference_figure

ROWS = (
    AblationRow("as it stands", 1, 13, 3, 0.0312, 0.004),
    AblationRow("without momentum", 1, 10, 3, 0.0262, 0.003, -0.005, 0.001, -2.5),
    AblationRow("horizons 5", 5, 13, 3, 0.02, 0.002),
    AblationRow("<script>x</script>", 1, 0, 0, error="lags: 5 > 3 & more"),
)


def test_every_variant_has_its_row() -> None:
    text = ablation_page(ROWS, (("Market", "tiny & co"),)).decode()
    body = text[text.index("<main>") : text.index("</main>")]
    assert "tiny &amp; co" in body
    assert re.search(
        r"as it stands</th><td>13</td><td>1</td><td>0\.0312</td><td>0\.0040</td><td>–</td><td>–</td>", body
    )
    assert '<td>−0.0050 <span class="dim">± 0.0010</span></td><td>−2.50</td>' in body
    assert "lags: 5 &gt; 3 &amp; more" in body
    assert "<script>x</script>" not in body


def test_the_figure_draws_two_standard_errors_of_what_can_be_compared() -> None:
    body = ablation_page(ROWS, ()).decode()
    found = re.search(r'data-chart="differences">(.*?)</script>', body, re.DOTALL)
    assert found is not None
    [points] = json.loads(found[1])["data"]
    assert (points["y"], points["x"]) == (["without momentum"], [-0.005])
    assert points["error_x"]["array"] == [0.002]
    alone = AblationRow("one seed", 1, 10, 1, 0.03, math.nan, 0.01)
    assert difference_figure([alone]).data[0].error_x.array == pytest.approx((0.0,))


def test_a_page_without_a_difference_has_no_figure() -> None:
    assert "data-chart=" not in ablation_page(ROWS[:1], ()).decode().partition("<script>")[0]
