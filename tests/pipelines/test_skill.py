"""The row of figures by which forecasts are judged, against scikit-learn and SciPy, and forecasts made without a registry."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn import metrics

from trading_core import config
from trading_core.errors import LookAheadError
from trading_core.pipelines.held_out import held_out
from trading_core.pipelines.learn import fit_prepared, prepare, split_before
from trading_core.pipelines.panels import current_versions, feature_sessions, load_panel
from trading_core.pipelines.skill import horizon_skill
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import QUANTILES

DAYS = np.repeat(np.arange("2024-01-01", "2024-01-31", dtype="datetime64[D]"), 20)


def test_every_figure_is_what_other_libraries_say() -> None:
    random = np.random.default_rng(3)
    label = 0.02 * random.standard_normal(600)
    score = 0.3 * label + 0.02 * random.standard_normal(600)
    p_up = 1.0 / (1.0 + np.exp(-40.0 * score))
    quantiles = score[:, None] + 0.02 * np.array([-1.6, -1.3, -0.7, 0.0, 0.7, 1.3, 1.6])
    unknown = np.arange(600) % 7 == 0
    found = horizon_skill(1, score, quantiles, p_up, np.where(unknown, np.nan, label), DAYS)
    y, p, q, days = label[~unknown], p_up[~unknown], quantiles[~unknown], DAYS[~unknown]
    up = y > 0.0
    ics = np.array([spearmanr(score[~unknown][days == day], y[days == day])[0] for day in np.unique(days)])
    assert (found.sessions, found.rows) == (30, len(y))
    assert found.rank_ic == pytest.approx(ics.mean())
    assert found.rank_icir == pytest.approx(ics.mean() / ics.std(ddof=1))
    # Newey and West with no lag: the standard error of a mean, with n below the variance.
    assert found.rank_ic_t == pytest.approx(ics.mean() / (ics.std() / math.sqrt(30)))
    assert found.roc_auc == pytest.approx(metrics.roc_auc_score(up, p))
    assert found.pr_auc == pytest.approx(metrics.average_precision_score(up, p))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(up, p >= 0.5))
    assert found.f1 == pytest.approx(metrics.f1_score(up, p >= 0.5))
    assert found.brier == pytest.approx(metrics.brier_score_loss(up, p))
    assert found.coverage_90 == pytest.approx(np.mean((y >= q[:, 0]) & (y <= q[:, -1])))
    losses = [metrics.mean_pinball_loss(y, q[:, k], alpha=tau) for k, tau in enumerate(QUANTILES)]
    assert found.pinball == pytest.approx(np.mean(losses))


def test_one_symbol_has_no_rank_ic_and_a_constant_probability_no_ranking() -> None:
    label = 0.02 * np.random.default_rng(3).standard_normal(30)
    days = np.unique(DAYS)
    found = horizon_skill(1, label, np.zeros((30, 7)), np.full(30, 0.6), label, days)
    assert math.isnan(found.rank_ic)
    assert math.isnan(found.rank_icir)
    assert (found.sessions, found.roc_auc) == (30, 0.5)
    share = float(np.mean(label > 0.0))
    assert found.pr_auc == pytest.approx(share)
    assert found.ece == pytest.approx(abs(0.6 - share))


def test_a_model_that_is_not_registered_forecasts_what_the_registered_one_stored(prepared: Workspace) -> None:
    model = config.load_model("linear")
    versions = current_versions(prepared, model.features)
    start, test_start = prepared.market.history_start, feature_sessions(prepared)[-prepared.market.test_sessions]
    seen = load_panel(prepared, model.features, start, prepared.sessions.previous(test_start), versions)
    learned = prepare(seen, model, split_before(seen, model, np.datetime64(test_start)))
    fitted = fit_prepared(learned, model, "linear", on_progress=lambda _: None)
    whole = load_panel(prepared, model.features, start, feature_sessions(prepared)[-1], versions)
    tested = np.flatnonzero(whole.sessions >= np.datetime64(test_start))
    found = held_out(learned, fitted, tested, whole)
    rows = pl.DataFrame(
        {
            "symbol": np.array(whole.symbols)[found.windows.symbol],
            "session": whole.sessions[found.windows.columns],
            "made": found.score[:, 0],
            "chance": found.p_up[:, 0],
        }
    ).cast({"session": pl.Date})
    stored = prepared.tables.read("forecasts").filter(pl.col("horizon") == 1)
    both = rows.join(stored, on=["symbol", "session"], how="inner")
    assert len(both) == len(stored.filter(pl.col("session") >= test_start)) > 1000
    np.testing.assert_allclose(both["made"], both["score"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(both["chance"], both["p_up"], rtol=0, atol=1e-7)
    with pytest.raises(LookAheadError):
        held_out(learned, fitted, tested - 1, whole)  # the session before the test is the cut-off
