"""The Assets that join the DAGs: model -> forecasts -> evaluation. Their events carry a reference in `extra`.

FEATURES is emitted by a partitioned DAG and starts nobody by itself: a plain consumer would be started by a backfill of
history, and the daily trade is started by its timetable only.
"""

from __future__ import annotations

from airflow.sdk import Asset

FEATURES = Asset(name="trading_features", uri="trading://features")
MODEL = Asset(name="trading_model", uri="trading://model")
FORECASTS = Asset(name="trading_forecasts", uri="trading://forecasts")
EVALUATION = Asset(name="trading_evaluation", uri="trading://evaluation")
