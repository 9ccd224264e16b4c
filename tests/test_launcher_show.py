"""The strategies' table that `make run` ends with."""

from __future__ import annotations

import math
from datetime import date

from rich.console import Console

from launcher.show import _luck, _strategies
from trading_core.pipelines.refs import EvaluationRef, StrategyRow


def row(name: str, sharpe: float, model: str = "", benchmark: bool = False, deflated: float = 0.25) -> StrategyRow:
    """Figures that are told from each other in the table."""
    figures = {"total_return": 0.123, "cagr": 0.1, "volatility": 0.2, "p_value": 0.041, "sortino": 1.0}
    rest = {"max_drawdown": -0.075, "turnover": 12.4, "hit_ratio": 0.5}
    return StrategyRow(name, benchmark, sharpe=sharpe, model=model, deflated=deflated, **figures, **rest)


def evaluation(*rows: StrategyRow, **more: float) -> EvaluationRef:
    skill = dict.fromkeys(("mean_rank_ic", "rank_icir", "rank_ic_t", "rank_ic_ceiling"), 0.0)
    days = {"start": date(2025, 1, 2), "end": date(2025, 6, 30)}
    return EvaluationRef("m", "e", "1", report="m/r.html", strategies=rows, **days, **skill, **more)


def printed(found: EvaluationRef) -> list[str]:
    """The lines of the table in a pipe, as wide as the launcher's."""
    console = Console(width=110, record=True)
    console.print(_strategies(found))
    return console.export_text().splitlines()


def test_the_best_comes_first_and_what_never_traded_last() -> None:
    nan = math.nan
    rows = [row("idle", nan), row("poor", -0.5), row("index", 0.7, benchmark=True, deflated=nan), row("good", 1.25)]
    lines = printed(evaluation(*rows))
    table = [line.split() for line in lines if line.startswith(("good", "index", "poor", "idle"))]
    assert [cells[0] for cells in table] == ["good", "index", "poor", "idle"]
    assert table[0][1:] == ["+12.3%", "+10.0%", "20.0%", "1.25", "0.041", "0.250", "-7.5%", "12x"]
    assert table[1][1] == "*"
    assert table[1][7] == table[3][4] == "–"
    assert "model" not in lines[2]


def test_rows_of_several_models_say_whose_they_are_and_twenty_strategies_fit_on_a_line() -> None:
    names = [f"threshold-long-short-{n}" for n in range(20)]
    rows = [row(name, 1.0, model) for name in names for model in ("linear v1", "linear walk-forward")]
    lines = printed(evaluation(*rows, row("sma-cross", 0.1, benchmark=True)))
    assert sum("linear walk-forward" in line for line in lines) == 20
    assert not any("…" in line for line in lines)  # nothing is cut
    found = next(line for line in lines if line.startswith("sma-cross"))
    assert found.split() == ["sma-cross", "*", "+12.3%", "+10.0%", "20.0%", "0.10", "0.041", "0.250", "-7.5%", "12x"]


def test_the_search_is_counted_in_one_line() -> None:
    text = _luck(evaluation(row("a", 1.0), trials=202, pbo=0.5, spa_p_value=0.6712))
    assert text == (
        "Trials on this market so far: 202. Probability of backtest overfitting (PBO): 50%. "
        "That the best is no better than the benchmark (SPA): p = 0.671."
    )
    assert "(PBO): –." in _luck(evaluation(row("a", 1.0)))
