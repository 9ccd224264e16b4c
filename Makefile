# make help lists the targets. Everything is installed in .venv and written under var/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MARKET ?=
SYMBOLS ?=
CALENDAR ?=
INTERVAL ?=
MODEL ?=
STRATEGY ?=
SESSIONS ?= 5
TESTS ?= tests
MARKED ?= not thorough
ONLY ?=
SEED ?=
DAYS ?=
LANES ?=
EVERY ?=
ALL ?=
STAMP := $(VENV)/.installed

.PHONY: help setup run test test-thorough crash-run concurrent-runs faults lint up down status bench clean lock

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo "make run MARKET=path/to/bars.parquet   MODEL=tft|lstm|zoo/gru   STRATEGY=top10   SESSIONS=5"
	@echo "make run MARKET=yahoo SYMBOLS=AAPL,MSFT,NVDA     (or MARKET=alpaca, with keys)"
	@echo "make run MARKET=btc.csv CALENDAR=24/7            (a market that never closes)"

setup: $(STAMP)  ## virtual environment and pinned dependencies, nothing else

# uv installs in seconds what takes pip minutes; it does not read pip's configuration, so what pip knows is passed on.
$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing pinned dependencies ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.8
	@links="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)"; \
	 VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q $${links:+--find-links "$$links"} -r requirements.txt && \
	 VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps -e .
	@touch $@

run: setup  ## the main job through Airflow: backfill, training, inference, evaluation, daily trades
	@$(BIN)/python -m launcher run --market "$(MARKET)" --symbols "$(SYMBOLS)" --calendar "$(CALENDAR)" \
	  --interval "$(INTERVAL)" --model "$(MODEL)" --strategy "$(STRATEGY)" --sessions $(SESSIONS)

test: setup  ## the tests; all but those of test-thorough
	@$(BIN)/python -m trading_core.features.compile  # once, or each worker and each process that a test starts would do it
	@$(BIN)/python -m trading_core.portfolio.compile
	@$(BIN)/python -m pytest -n 3 -m "$(MARKED)" $(TESTS)

test-thorough:  ## the rest of them: kills, races, random orders, whole other programs
	@$(MAKE) --no-print-directory test MARKED=thorough

crash-run: setup  ## SESSIONS of daily trading with a crash in the middle, beside the same ones undisturbed (SESSIONS=20: minutes)
	@$(BIN)/python tests/e2e/crash_run.py --sessions $(SESSIONS)

concurrent-runs: setup  ## 16 runs of daily_trade at once, of every kind, with Airflow on PostgreSQL where that is installed
	@$(BIN)/python tests/e2e/concurrent_runs.py

faults: setup  ## the fault matrix, as a table; ONLY=days SEED=123 DAYS=1 replays
	@ONLY="$(ONLY)" SEED="$(SEED)" DAYS="$(DAYS)" LANES="$(LANES)" EVERY="$(EVERY)" ALL="$(ALL)" $(BIN)/python tests/faults

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

up: setup  ## Airflow and MLflow left running, schedules on; prints addresses and login
	@$(BIN)/python -m launcher up --market "$(MARKET)" --symbols "$(SYMBOLS)" --calendar "$(CALENDAR)" \
	  --interval "$(INTERVAL)"

down: setup  ## stops what `make up` started
	@$(BIN)/python -m launcher down

status: setup  ## whether the services run, and where
	@$(BIN)/python -m launcher status

bench: setup  ## the benchmarks behind docs/benchmarks.md
	@$(BIN)/python -m benchmarks

clean:  ## stops the services and deletes .venv and var/ (models, ledger and data of this checkout)
	@if [ -x $(BIN)/python ] && [ -f $(STAMP) ]; then $(BIN)/python -m launcher down || true; fi
	@rm -rf $(VENV) var

lock: setup  ## resolves requirements.txt anew from pyproject.toml
	@links="$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)"; \
	 $(BIN)/uv pip compile -q --python-version 3.11 $${links:+--find-links "$$links"} --extra dev --no-emit-find-links \
	   --no-header pyproject.toml -o requirements.txt
	@sed -i 's/^torch==\([0-9.]*\)+cpu/torch==\1/' requirements.txt
