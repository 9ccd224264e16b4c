"""The report of a training: every number comes from its source, and MLflow and the store hold what was promised."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from model_samples import card_of, planted_panel
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score
from tiny_market import LAST, NOW, START, trained

from trading_core.calibration.thresholds import ThresholdChoice
from trading_core.config import ModelConfig
from trading_core.costs import CostModel
from trading_core.pipelines.after import AfterTraining, fit_after
from trading_core.pipelines.learn import Prepared, fit_prepared, prepare, split_before
from trading_core.pipelines.model_report import (
    SAMPLES,
    expert_use,
    fan_of,
    gather,
    judged,
    looked,
    member_curves,
    sampled,
)
from trading_core.pipelines.run_record import (
    curves_of,
    files_of,
    headline,
    history_by_symbol_csv,
    metrics_of,
    thresholds_csv,
)
from trading_core.pipelines.train import TrainRequest
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.model_report import HorizonReport
from trading_core.registry.bundle import load_bundle
from trading_core.schema import Target
from trading_core.storage.artifacts import ArtifactStore
from trading_core.training.fit import FitResult
from trading_core.training.progress import EpochRecord, best_epoch

NAN = float("nan")
CONFIG: dict[str, Any] = {
    "model": "tft",
    "features": ["f0", "f1", "f2"],
    "horizons": [1, 3],
    "encoder_length": 5,
    "static": ["sector", "symbol"],
    "targets": ["quantiles", "classes", "barrier"],
    "ensemble": 2,
    "seed": 4,
    "architecture": {"hidden_size": 8, "hidden_continuous_size": 4},
    "training": {"epochs": 3, "learning_rate": 0.02, "dates_per_batch": 8, "patience": 3, "monitor": "roc_auc"},
    "split": {"validation_fraction": 0.3, "skip_first": 0},
}


@dataclass(frozen=True)
class Learned:
    model: ModelConfig
    prepared: Prepared
    fitted: FitResult
    after: AfterTraining
    horizons: tuple[HorizonReport, ...]


@pytest.fixture(scope="module")
def learned() -> Learned:
    """An ensemble of two small TFTs on a panel with a planted signal."""
    model, panel = ModelConfig(**CONFIG), planted_panel()
    prepared = prepare(panel, model, split_before(panel, model, panel.sessions[-20]))
    fitted = fit_prepared(prepared, model, "sample", on_progress=lambda record: None)
    after = fit_after(fitted, prepared.validation, CostModel(), 252)
    return Learned(model, prepared, fitted, after, judged(prepared, fitted, after))


def outcomes(learned: Learned, h: int) -> tuple[np.ndarray, np.ndarray]:
    """Label (log return) and session of every validation row, from prices alone."""
    windows = learned.prepared.validation
    opens, t = windows.scaled.panel.opens, windows.columns
    span = learned.model.horizons[h]
    return np.log(opens[windows.symbol, t + 1 + span] / opens[windows.symbol, t + 1]), t


@pytest.mark.parametrize("h", [0, 1])
def test_probabilities_are_judged_as_sklearn_judges_them(learned: Learned, h: int) -> None:
    report, up = learned.horizons[h], outcomes(learned, h)[0] > 0.0
    assert report.horizon == learned.model.horizons[h]
    threshold = report.thresholds[0].chosen
    for skill, p in ((report.raw, learned.after.raw_p_up[:, h]), (report.calibrated, learned.after.p_up[:, h])):
        assert skill.n == len(up) > 400
        assert skill.brier == pytest.approx(brier_score_loss(up, p))
        assert skill.log_loss == pytest.approx(log_loss(up, p))
        assert skill.roc_auc == pytest.approx(roc_auc_score(up, p))
        assert skill.pr_auc == pytest.approx(average_precision_score(up, p))
        place = np.clip(np.ceil(p * 10.0) - 1, 0, 9)
        gaps = [(abs(up[place == b].mean() - p[place == b].mean()), (place == b).sum()) for b in np.unique(place)]
        assert skill.ece == pytest.approx(sum(gap * n for gap, n in gaps) / len(up))
        assert skill.mce == pytest.approx(max(gap for gap, _ in gaps))
    assert report.calibrated.f1 == pytest.approx(f1_score(up, learned.after.p_up[:, h] >= threshold))
    assert report.raw.threshold == 0.5
    tables = report.reliability
    for name, p in (("raw", learned.after.raw_p_up[:, h]), ("calibrated", learned.after.p_up[:, h])):
        assert tables[name].count.sum() == len(up)
        assert tables[name].count.max() - tables[name].count.min() <= 2  # a tenth of the rows each
        assert (tables[name].count @ tables[name].probability) == pytest.approx(p.sum())


@pytest.mark.parametrize("h", [0, 1])
def test_classes_are_judged_as_sklearn_judges_them(learned: Learned, h: int) -> None:
    windows, report = learned.prepared.validation, learned.horizons[h]
    label, t = outcomes(learned, h)
    scaled = label / (windows.scaled.panel.sigma[windows.symbol, t] * math.sqrt(report.horizon))
    came = np.where(scaled > 0.5, 2, np.where(scaled < -0.5, 0, 1))
    found = learned.after.classes[Target.CLASSES]
    assert list(report.classes) == ["classes", "barrier"]
    for name, p in (("raw", found.raw[:, h]), ("calibrated", found.calibrated[:, h])):
        skill = report.classes["classes"][name]
        assert skill.accuracy == pytest.approx(accuracy_score(came, p.argmax(axis=1)))
        assert skill.log_loss == pytest.approx(log_loss(came, p))
        assert [one.support for one in skill.per_class] == np.bincount(came).tolist()
        assert [one.name for one in skill.per_class] == ["bear", "neutral", "bull"]
    assert [one.name for one in report.classes["barrier"]["raw"].per_class] == ["stop", "neither", "take"]
    metrics = metrics_of(learned.fitted, learned.horizons)
    assert metrics[f"validation_classes_log_loss_h{report.horizon}"] == pytest.approx(
        log_loss(came, found.calibrated[:, h])
    )
    assert metrics[f"validation_raw_classes_log_loss_h{report.horizon}"] == pytest.approx(
        log_loss(came, found.raw[:, h])
    )


@pytest.mark.parametrize("h", [0, 1])
def test_the_reference_is_the_share_of_rises_that_training_knew(learned: Learned, h: int) -> None:
    label, session = outcomes(learned, h)
    against = learned.horizons[h].against_share
    share = float((learned.prepared.train.y[:, h] > 0.0).mean())
    up, raw = (label > 0.0).astype(float), learned.after.raw_p_up[:, h]
    assert (against.share, against.sessions) == (share, len(np.unique(session)))
    assert against.brier == pytest.approx(brier_score_loss(up, raw))
    assert against.reference == pytest.approx(np.mean((share - up) ** 2))
    frame = pl.DataFrame({"session": session, "gain": (share - up) ** 2 - (raw - up) ** 2})
    gain = frame.group_by("session", maintain_order=True).agg(pl.col("gain").mean())["gain"].to_numpy()
    if h == 0:  # labels of one session do not overlap: the plain t statistic
        assert against.t_stat == pytest.approx(gain.mean() / (gain.std() / math.sqrt(len(gain))))
        assert against.t_stat > 2.0  # the signal was planted there
    assert np.sign(against.t_stat) == np.sign(gain.mean())


def test_saying_the_share_itself_is_neither_better_nor_worse_than_saying_it(learned: Learned) -> None:
    """To float32: a t statistic of the roundings would be significant."""
    share = float((learned.prepared.train.y[:, 0] > 0.0).mean())
    raw = np.full_like(learned.after.raw_p_up, np.float32(share))
    report = judged(learned.prepared, learned.fitted, replace(learned.after, raw_p_up=raw))[0]
    assert math.isnan(report.against_share.t_stat)
    assert report.against_share.brier == pytest.approx(report.against_share.reference, abs=1e-6)


@pytest.mark.parametrize("h", [0, 1])
def test_coverage_is_counted_by_thirds_of_the_volatility(learned: Learned, h: int) -> None:
    label, _ = outcomes(learned, h)
    windows = learned.prepared.validation
    sigma = windows.scaled.panel.sigma[windows.symbol, windows.columns]
    quantiles = learned.after.quantiles[:, h]
    scale = sigma * math.sqrt(learned.model.horizons[h])
    ends = {
        "forecast quantiles": (quantiles[:, 0], quantiles[:, -1]),
        "conformal": learned.after.intervals[h].apply(quantiles[:, 0], quantiles[:, -1], scale),
    }
    for name, (low, high) in ends.items():
        skill = learned.horizons[h].intervals[name]
        inside = (label >= low) & (label <= high)
        thirds = [inside[part].mean() for part in np.array_split(np.argsort(sigma, kind="stable"), 3)]
        found = (skill.coverage_low_volatility, skill.coverage_middle_volatility, skill.coverage_high_volatility)
        # The conformal end is the score of one of these very rows, which a rounding puts on either side.
        assert skill.coverage == pytest.approx(inside.mean(), abs=1.1 / len(label))
        assert found == pytest.approx(thirds, abs=2.0 / (len(label) / 3))  # who stands on a border
        assert skill.mean_width == pytest.approx((high - low).mean())
    assert learned.horizons[h].intervals["conformal"].coverage == pytest.approx(0.9, abs=0.01)


def test_threshold_curves_are_the_table_of_the_bundle(learned: Learned) -> None:
    for h, report in enumerate(learned.horizons):
        for curves, (objective, found) in zip(report.thresholds, learned.after.thresholds.items(), strict=True):
            stored = ThresholdChoice.from_json(found[h].to_json())
            assert (curves.chosen, curves.value) == (stored.threshold, stored.value)
            np.testing.assert_array_equal(next(iter(curves.curves.values())), stored.column(objective))
            np.testing.assert_array_equal(curves.threshold, stored.column("threshold"))
            assert curves.cost_bps == CostModel().total_bps
    assert [list(c.curves) for c in learned.horizons[0].thresholds] == [
        ["F1", "precision", "recall"],
        ["net Sharpe", "turnover"],
    ]


def test_the_table_of_thresholds_reads_back(learned: Learned) -> None:
    choices = {objective: found[0] for objective, found in learned.after.thresholds.items()}
    rows = list(csv.DictReader(io.StringIO(thresholds_csv(choices))))
    choice = choices["f1"]
    assert len(rows) == len(choice.rows) > 50
    for column in ("threshold", "n", "f1", "net_sharpe_annual", "turnover"):
        values = [float(row[column]) if row[column] else NAN for row in rows]
        np.testing.assert_array_equal(values, choice.column(column))
    chosen = {row["chosen_by"]: float(row["threshold"]) for row in rows if row["chosen_by"]}
    assert " ".join(chosen) in ("f1 net_sharpe_annual", "net_sharpe_annual f1")
    for objective, one in choices.items():
        assert one.threshold in (chosen.get(objective), chosen.get("f1 net_sharpe_annual"))


def test_metrics_are_those_of_the_report(learned: Learned) -> None:
    found, report = metrics_of(learned.fitted, learned.horizons), learned.horizons[1]
    assert found["validation_mean_rank_ic_h3"] == learned.fitted.skill[1].mean_rank_ic
    assert found["validation_brier_h3"] == report.calibrated.brier == learned.fitted.skill[1].brier
    assert found["validation_raw_ece_h3"] == report.raw.ece
    assert (found["validation_ece_h3"], found["validation_mce_h3"]) == (report.calibrated.ece, report.calibrated.mce)
    assert (found["validation_pr_auc_h3"], found["validation_f1_h3"]) == (
        report.calibrated.pr_auc,
        report.calibrated.f1,
    )
    assert found["validation_coverage_90_h3"] == report.intervals["forecast quantiles"].coverage
    assert found["validation_interval_coverage_h3"] == report.intervals["conformal"].coverage
    assert found["validation_interval_high_volatility_h3"] == report.intervals["conformal"].coverage_high_volatility
    assert found["threshold_net_sharpe_h3"] == learned.after.thresholds["net_sharpe_annual"][1].threshold
    assert found["validation_best_f1_h3"] == learned.after.thresholds["f1"][1].value
    assert found["best_epoch"] == learned.fitted.best_epoch
    few = headline(found)
    assert few["validation_mean_rank_ic_h1"] == found["validation_mean_rank_ic_h1"]
    assert len(few) == 22 < len(found)
    blind = replace(learned.horizons[0].skill, rank_icir=NAN)
    assert "validation_rank_icir_h1" not in metrics_of(learned.fitted, (replace(learned.horizons[0], skill=blind),))


def test_every_member_has_its_curves(learned: Learned) -> None:
    first, second = member_curves(learned.fitted.history, "roc_auc")
    records = [record for record in learned.fitted.history if record.member == 2]
    assert (first.member, second.member, len(records)) == (1, 2, 3)
    assert first.best_epoch == learned.fitted.best_epoch
    assert second.losses["training"].tolist() == [record.train_loss for record in records]
    assert second.losses["validation"].tolist() == [record.val_loss for record in records]
    assert list(second.metrics) == ["rank IC", "watched: roc_auc"]
    assert second.metrics["watched: roc_auc"].tolist() == [record.monitored for record in records]
    assert second.learning_rate.tolist() == [record.learning_rate for record in records]
    curves = curves_of(learned.fitted.history)
    assert curves["member_2/validation_loss"] == [record.val_loss for record in records]
    assert sorted(curves) == sorted(
        f"{where}/{name}"
        for where in ("curves", "member_2")
        for name in ("learning_rate", "monitored", "train_loss", "validation_loss", "validation_rank_ic")
    )


def test_what_is_watched_is_drawn_once() -> None:
    ranked = [EpochRecord(k, 1.0, 0.5, 0.1 * k, 1e-3, 1.0, 0.1 * k) for k in (1, 2)]
    assert list(member_curves(ranked, "rank_ic")[0].metrics) == ["rank IC"]
    by_loss = [replace(record, monitored=-record.val_loss, val_rank_ic=NAN) for record in ranked]
    assert member_curves(by_loss, "loss")[0].metrics == {}


def test_the_best_epoch_is_the_first_of_the_highest_value() -> None:
    def of(*values: float) -> int:
        return best_epoch([EpochRecord(k, 1.0, 1.0, NAN, 1e-3, 1.0, v) for k, v in enumerate(values, start=1)])

    assert [of(0.1, 0.3, 0.3), of(NAN, -0.2, NAN), of(NAN, NAN), of(0.5, NAN)] == [2, 2, 1, 1]


def test_a_tft_tells_where_it_looked(learned: Learned) -> None:
    found = looked(learned.prepared, learned.fitted, learned.model)
    assert found is not None
    windows = learned.prepared.validation
    assert found.samples == len(windows) < SAMPLES  # all of them
    channels, static = found.importance
    assert (channels.names, static.names) == (("f0", "f1", "f2"), ("sector", "symbol"))
    batch = windows.gather(np.arange(len(windows)))
    import torch

    with torch.no_grad():
        parts = [
            member.interpret(torch.from_numpy(batch.x), torch.from_numpy(batch.static))
            for member in learned.fitted.module.members
        ]
    expected = np.mean([part.channels.numpy().mean(axis=0) for part in parts], axis=0)
    np.testing.assert_allclose(channels.weights, expected, atol=1e-6)
    attention = np.mean([part.attention.numpy().mean(axis=0) for part in parts], axis=0)  # [H,E+H]
    np.testing.assert_allclose(found.attention, attention[:, :5], atol=1e-6)
    assert found.on_horizons == pytest.approx(attention[:, 5:].sum(axis=1).mean(), abs=1e-6)


def test_samples_are_bounded_and_drawn_by_the_seed() -> None:
    rows = sampled(50_000, 7)
    assert len(rows) == SAMPLES == len(np.unique(rows))
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sampled(50_000, 7))
    assert set(rows.tolist()) != set(sampled(50_000, 8).tolist())
    np.testing.assert_array_equal(sampled(3, 7), [0, 1, 2])


def test_the_fan_is_the_last_decision_of_the_first_symbol(learned: Learned) -> None:
    windows, after = learned.prepared.validation, learned.after
    fan = fan_of(windows, after.quantiles, learned.prepared.spec.quantiles)
    panel, last = windows.scaled.panel, int(windows.columns.max())
    days = panel.sessions.astype(object)
    assert (fan.symbol, fan.sessions[-1], len(fan.sessions)) == ("S00", days[last], 60)
    np.testing.assert_array_equal(fan.closes, panel.closes[0, last - 59 : last + 1])
    assert (fan.entry, fan.entry_open) == (days[last + 1], panel.opens[0, last + 1])
    assert list(fan.ends) == [days[last + 2], days[last + 4]]
    assert fan.outcome is not None
    assert fan.outcome.tolist() == [panel.opens[0, last + 2], panel.opens[0, last + 4]]
    row = int(np.flatnonzero((windows.symbol == 0) & (windows.columns == last))[0])
    np.testing.assert_array_equal(fan.quantiles, after.quantiles[row])


def test_the_use_of_experts_is_that_of_the_best_epoch() -> None:
    def record(member: int, epoch: int, value: float, share: float) -> EpochRecord:
        figures = {"expert_usage/h5/e1": 1.0 - share, "expert_usage/h5/e0": share, "load": 3.0}
        return EpochRecord(epoch, 1.0, 1.0, 0.0, 1e-3, 1.0, value, member, figures)

    history = [record(1, 1, 0.1, 0.9), record(1, 2, 0.2, 0.75), record(2, 1, 0.3, 0.5), record(2, 2, 0.1, 0.25)]
    found = [(use.member, use.horizon, use.shares) for use in expert_use(history)]
    assert found == [(1, 5, (0.75, 0.25)), (2, 5, (0.5, 0.5))]
    curves = curves_of(history)
    assert curves["expert_usage/h5/e0"] == [0.9, 0.75]
    assert curves["member_2/load"] == [3.0, 3.0]
    assert expert_use([EpochRecord(1, 1.0, 1.0, 0.0, 1e-3, 1.0)]) == ()


def test_histories_of_symbols_are_one_table() -> None:
    def record(epoch: int) -> EpochRecord:
        return EpochRecord(epoch, 0.5 / epoch, 1.0, NAN, 1e-3, 1.0, figures={"load": 2.0})

    text = history_by_symbol_csv({"A,B": (record(1), record(2)), "C": (record(1),)})
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["symbol"], row["epoch"], float(row["train_loss"])) for row in rows] == [
        ("A,B", "1", 0.5), ("A,B", "2", 0.25), ("C", "1", 0.5),
    ]  # fmt: skip
    assert rows[2]["load"] == "2.0"


def test_networks_per_symbol_are_counted_and_their_histories_kept(learned: Learned, tmp_path: Path) -> None:
    own = learned.fitted.history[:3]
    fitted = replace(learned.fitted, scope="symbol", by_symbol={"S00": own, "S03": own})
    request = TrainRequest(
        {"id": "test", "source": "parquet"}, "sample", {}, START, LAST, {"bars": 1}, {}, reuse=True, requested_at=NOW
    )
    card = card_of("tft", fitted, learned.prepared.train)
    report = gather(request, learned.model, card, learned.prepared, fitted, learned.after, learned.horizons)
    assert ("Networks of their own", "2 of 16 symbols") in report.facts
    assert ("Request", request.hash()) in report.facts
    assert "history_by_symbol.csv" in " ".join(report.notes)
    assert "simulated" not in " ".join(report.notes)
    store = ArtifactStore.open(str(tmp_path))
    store.write_bytes("models/sample/abc/trees_h1.txt", b"tree")
    files = files_of(request, fitted, learned.after, (1, 3), b"page", store, "models/sample/abc")
    assert files["history_by_symbol.csv"].decode() == history_by_symbol_csv(fitted.by_symbol)
    assert (files["report.html"], files["bundle/trees_h1.txt"]) == (b"page", b"tree")


# --- through the pipeline ---------------------------------------------------------------------------------------------


def configured(ws: Workspace, **changes: Any) -> None:
    """The config `sample` on the market's own features."""
    features = {"features": ["log_ret", "ret_5_rank", "dow_sin"], "split": {"validation_fraction": 0.1}}
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sample.yaml").write_text(yaml.safe_dump({**CONFIG, **features, **changes}))


def test_a_training_leaves_its_page_and_all_of_it_in_mlflow(
    ws: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    configured(ws, training={"epochs": 2, "batches_per_epoch": 3})
    made = trained(ws, model="sample")
    assert re.fullmatch(r"tiny/training/[0-9a-f]{16}/report\.html", made.report)
    assert f"Report: {ws.store.uri(made.report)}" in capsys.readouterr().out
    page = ws.store.read_bytes(made.report)
    client = MlflowClient(ws.settings.mlflow_uri, ws.settings.mlflow_uri)
    run_id = ws.registry().version("tiny", made.version).run_id
    files = set(_files(client, run_id))
    assert files == {
        "report.html", "request.json", "history.csv", "thresholds_h1.csv", "thresholds_h3.csv", "bundle/MANIFEST.json",
        "bundle/config.json", "bundle/weights.safetensors",
    }  # fmt: skip

    def artifact(name: str) -> bytes:
        return Path(client.download_artifacts(run_id, name, str(tmp_path))).read_bytes()

    assert artifact("report.html") == page
    for name in ("MANIFEST.json", "config.json", "weights.safetensors"):
        assert artifact(f"bundle/{name}") == ws.store.read_bytes(f"{made.bundle}/{name}")
    history = pl.read_csv(artifact("history.csv"))
    assert history.select("member", "epoch").rows() == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for key, column, member in (
        ("curves/train_loss", "train_loss", 1), ("member_2/train_loss", "train_loss", 2),
        ("member_2/validation_loss", "val_loss", 2), ("curves/learning_rate", "learning_rate", 1),
        ("member_2/monitored", "monitored", 2), ("curves/validation_rank_ic", "val_rank_ic", 1),
    ):  # fmt: skip
        points = [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
        assert points == history.filter(pl.col("member") == member).select("epoch", column).rows(), key
    card = load_bundle(ws.store, made.bundle).card
    logged = client.get_run(run_id).data
    for objective, name in (("f1", "f1"), ("net_sharpe_annual", "net_sharpe")):
        assert (
            logged.metrics[f"threshold_{name}_h3"] == ThresholdChoice.from_json(card.thresholds[objective][1]).threshold
        )
    assert made.metrics.items() <= logged.metrics.items()
    assert (logged.params["members"], logged.params["calibration"]) == ("2", "platt")
    text = re.sub(r"<script\b.*?</script>|<style.*?</style>|<[^>]+>", " ", page.decode(), flags=re.S)
    text = re.sub(r"\s+", " ", text.replace("\u00a0", " "))
    for part in (
        "sample on tiny", f"Trained on {card.train_start} to {card.train_end}", f"Cut-off {card.cutoff}", "Seeds 4, 5",
        f"On the validation part, {card.validation_start} to {card.validation_end}, which also stopped the training",
        "The market is simulated", "What it looked at", "Network 2", f"Request {made.report.split('/')[2]}",
    ):  # fmt: skip
        assert part in text, part


def _files(client: Any, run_id: str, folder: str | None = None) -> list[str]:
    found = []
    for entry in client.list_artifacts(run_id, folder):
        found += _files(client, run_id, entry.path) if entry.is_dir else [entry.path]
    return found


def test_a_version_that_is_taken_again_names_its_page_while_there_is_one(ws: Workspace) -> None:
    first = ws.store.list("tiny/training")
    (page,) = [name for name in first if name.endswith("report.html")]
    again = trained(ws)
    assert (again.reused, again.report) == (True, page)
    ws.store.delete(page)
    assert trained(ws).report == ""
