"""Imports slow libraries once in the scheduler of a single machine, so that the tasks it forks have them already.

Only with TRADING_PRELOAD=1, which the launcher sets for its scheduler: there every task is a fork of a fork of the scheduler, and
would otherwise spend one to four seconds on imports. Only what is safe to have imported before a fork is listed: no torch, polars
or pyarrow (thread pools), and nothing is opened or called.
"""

from __future__ import annotations

import os
import sys

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


@hookimpl
def on_starting(component: object) -> None:
    """Called by Airflow in each of its processes before it starts work."""
    if os.environ.get("TRADING_PRELOAD") == "1" and "scheduler" in sys.argv:
        import mlflow.store.model_registry.sqlalchemy_store
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401
        import numba  # noqa: F401


class PreloadPlugin(AirflowPlugin):
    name = "trading_preload"
    listeners = [sys.modules[__name__]]  # noqa: RUF012 - the attribute Airflow reads
