"""Qlib's Alpha158 by Qlib's own expression engine; run by the Python of the peer environment, imports nothing of ours.

    python benchmarks/qlib_alpha158.py STORE RUNS

Two workers; no expression cache and no dataset cache; what Qlib keeps in memory between calls is cleared before each. The
first 20 symbols are computed once, untimed, so that imports and the reading of the bars' files are not counted.
"""

from __future__ import annotations

import json
import logging
import sys
import time

import qlib
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import D
from qlib.data.cache import H

WORKERS = 2


def main() -> None:
    store, runs = sys.argv[1], int(sys.argv[2])
    qlib.init(
        provider_uri=store,
        region="us",
        kernels=WORKERS,
        expression_cache=None,
        dataset_cache=None,
        logging_level=logging.ERROR,
    )
    fields, names = Alpha158DL.get_feature_config()
    everything = D.instruments("all")
    some = D.list_instruments(everything, as_list=True)[:20]
    D.features(some, fields, freq="day")
    seconds = []
    table = None
    for _ in range(runs):
        table = None  # before the next one is made
        H.clear()
        start = time.perf_counter()
        table = D.features(everything, fields, freq="day")
        seconds.append(time.perf_counter() - start)
    middle = table.iloc[:, names.index("KMID")]  # (close - open) / open: the caller knows what it must be
    numbers = {"rows": len(table), "features": len(names), "seconds": seconds, "probe": float(middle.iloc[-1])}
    print("RESULT " + json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main()
