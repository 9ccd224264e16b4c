# One image for Airflow's services, the workers, MLflow and the training pods.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 AIRFLOW_HOME=/opt/airflow NUMBA_CACHE_DIR=/opt/numba
WORKDIR /opt/trading

# LightGBM's machine code needs the OpenMP runtime of the system; the other packages bring theirs.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

# The dependencies first: this layer is rebuilt only when the lock changes.
COPY requirements.txt ./
RUN pip install --no-cache-dir uv==0.13.8 && uv pip install --system --no-cache -r requirements.txt

COPY pyproject.toml README.md ./
COPY trading_core ./trading_core
COPY launcher ./launcher
COPY configs ./configs
COPY dags ./dags
COPY plugins ./plugins
RUN pip install --no-cache-dir --no-deps -e .

# Named volumes take their owner from these folders, so the user can write to them.
RUN useradd --uid 50000 --create-home trading \
    && mkdir -p var /opt/airflow/logs /opt/airflow/auth /opt/mlflow/data /opt/numba \
    && chown -R trading: var /opt/airflow /opt/mlflow /opt/numba
USER trading

# The machine code of features and accounts; a worker whose processor differs compiles its own.
RUN python -m trading_core.features.compile && python -m trading_core.portfolio.compile

CMD ["trading", "--help"]
