"""The house rules that a parser can check: who may import whom, and what no room may do. design.md, section 2, as data.

`violations(root)` reads every Python file of the program, imports inside functions included, and names each arrow that the
table does not have. The tests at the end plant violations, so that the check itself can fail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CORE = "trading_core"

BASE = {"schema", "errors"}
ROOMS: dict[str, set[str]] = {
    "schema": set(),
    "errors": set(),
    "sessions": BASE,
    "costs": BASE,
    "metrics": BASE,
    "storage": {"errors"},
    "config": {"errors"},
    "calibration": BASE | {"metrics", "costs"},
    "market": BASE | {"sessions", "storage"},
    "features": BASE | {"sessions"},
    "dataset": BASE | {"sessions", "features"},
    "models": BASE,
    "plots": BASE | {"metrics"},
    "training": BASE | {"metrics", "calibration", "dataset", "models", "plots"},
    "registry": BASE | {"storage", "dataset", "models", "calibration"},
    "inference": BASE | {"dataset", "models", "calibration", "registry"},
    "portfolio": BASE | {"sessions", "costs"},
    "backtest": BASE | {"sessions", "costs", "metrics", "portfolio"},
    "execution": BASE | {"sessions", "costs", "portfolio"},
    "monitoring": BASE | {"metrics", "storage"},
}
SERVING = BASE | {"config", "storage", "metrics", "plots", "registry", "inference", "execution", "monitoring"}
ALLOWED: dict[str, set[str]] = {
    **ROOMS,
    "serving": SERVING,
    "pipelines": set(ROOMS),  # everything above except serving
    # The command line prints errors, and reads the registry of models (`trading models zoo`).
    "cli": {"config", "errors", "pipelines", "commands"},
    "commands": {"config", "errors", "pipelines", "models"},
    "dags": {"config", "pipelines", "plugins"},  # plugins: the session timetable
    "plugins": {"sessions", "errors", "serving"},
    "launcher": {"config", "errors", "pipelines"},
}
LATER = {"monitoring"}  # rooms of a later round
# Rooms that Airflow loads again and again may import these only where the import runs late: in a function.
ONLY_INSIDE_FUNCTIONS: dict[str, set[str]] = {"dags": {"pipelines"}, "plugins": {"sessions", "errors", "serving"}}

# Where a third-party package may be imported: files or folders, relative to the repository.
FENCES: dict[str, tuple[str, ...]] = {
    "torch": tuple(f"{CORE}/{room}" for room in ("models", "training", "registry", "inference")),
    "pytorch_forecasting": (),  # tests and benchmarks compare with it
    "lightgbm": (f"{CORE}/models/trees.py",),
    "safetensors": (f"{CORE}/registry", f"{CORE}/training"),
    "lightning": (f"{CORE}/training",),
    "optuna": (f"{CORE}/training",),
    # preload.py imports for the sake of importing, before the scheduler forks; it uses nothing.
    "mlflow": (f"{CORE}/registry", f"{CORE}/training", "plugins/preload.py"),
    "deltalake": (f"{CORE}/storage",),
    "boto3": (f"{CORE}/storage", f"{CORE}/execution/store_dynamodb.py"),
    "botocore": (f"{CORE}/storage", f"{CORE}/execution/store_dynamodb.py"),
    "yfinance": (f"{CORE}/market/yahoo.py",),
    "alpaca": (f"{CORE}/market/alpaca.py", f"{CORE}/execution/alpaca_calls.py"),
    "numba": (
        f"{CORE}/features/kernels",
        f"{CORE}/portfolio/kernels",
        f"{CORE}/metrics/bootstrap.py",
        "plugins/preload.py",
    ),
    "skfolio": (f"{CORE}/portfolio/optimisation.py",),
    "plotly": (f"{CORE}/plots",),
    "matplotlib": (f"{CORE}/plots",),
    "fastapi": (f"{CORE}/serving", "plugins"),
    "airflow": ("dags", "plugins"),
    "exchange_calendars": (f"{CORE}/sessions.py", "plugins/preload.py"),
    # Nothing that runs code found in a file.
    **dict.fromkeys(("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"), ()),
}
COMPUTED = "(computed)"
MAX_LINES = 500
# A registry names its members' modules as text; there every "trading_core..." in quotes counts as an import.
NAMED_IMPORTS = {f"{CORE}/models/registry.py"}
# Reads the clock: only the edges may (dags and launcher hand `now` on).
CLOCK_READERS = {f"{CORE}/cli.py"}
# The length of a pause between two attempts is no result: it may be random.
UNSEEDED_RANDOM = {f"{CORE}/storage/tables.py"}
CLOCKS = {
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
    "datetime.date.today",
    "time.time",
    "time.time_ns",
}
SEEDED = {"default_rng", "SeedSequence", "Generator", "PCG64", "RandomState", "Random"}


@dataclass(frozen=True)
class Import:
    """One imported module. `late`: inside a function, or for type checkers only."""

    module: str
    line: int
    late: bool


def files(root: Path) -> list[Path]:
    return sorted(path for top in (CORE, "dags", "plugins", "launcher") for path in (root / top).rglob("*.py"))


def room(path: Path, root: Path) -> str:
    """The room a file belongs to: `trading_core/market/yahoo.py` -> market, `dags/assets.py` -> dags."""
    parts = path.relative_to(root).parts
    return parts[0] if parts[0] != CORE else parts[1].removesuffix(".py")


def imports(tree: ast.AST, late: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from trading_core import config` imports trading_core.config; deeper than that the module is enough.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == CORE else [base]
            yield from (Import(name, node.lineno, late) for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            known = node.args and isinstance(node.args[0], ast.Constant)
            yield Import(str(node.args[0].value) if known else COMPUTED, node.lineno, late)  # type: ignore[attr-defined]
            yield from imports(node, late)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for part in node.body:
                yield from imports(ast.Module([part], []), True)
            for part in node.orelse:
                yield from imports(ast.Module([part], []), late)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, late or inside)


def target(module: str, root: Path) -> str | None:
    """Which of our rooms a module belongs to; None for one that is not ours."""
    parts = module.split(".")
    if parts[0] == CORE:
        inside = len(parts) > 1 and ((root / CORE / parts[1]).exists() or (root / CORE / f"{parts[1]}.py").is_file())
        return parts[1] if inside else CORE  # the package itself: its version
    for top in ("dags", "plugins", "launcher"):
        if parts[0] == top or (top != "launcher" and (root / top / f"{parts[0]}.py").is_file()):
            return top
    return None


def _named(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value).startswith(f"{CORE}."):
            yield Import(str(node.value), node.lineno, late=True)


def _import_problems(path: Path, root: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    here, name = room(path, root), path.relative_to(root).as_posix()
    for item in [*imports(tree), *(_named(tree) if name in NAMED_IMPORTS else ())]:
        if item.module.startswith("."):
            yield item.line, "relative import; write the absolute name"
            continue
        if item.module == COMPUTED:
            if name not in NAMED_IMPORTS:
                yield item.line, "imports a computed name; the table cannot check it"
            continue
        there = target(item.module, root)
        if there is not None and there not in ALLOWED.get(here, set()) | {here, CORE}:
            yield item.line, f"{here} may not import {there}"
        elif there in ONLY_INSIDE_FUNCTIONS.get(here, set()) and not item.late:
            yield item.line, f"{here} may import {there} only inside a function"
        package = item.module.split(".")[0]
        if package in FENCES and not any(name == fence or name.startswith(f"{fence}/") for fence in FENCES[package]):
            yield item.line, f"{package} may be imported in {', '.join(FENCES[package]) or 'no file'} only"


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What the names bound by imports stand for: {"np": "numpy", "datetime": "datetime.datetime"}."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _call_problems(name: str, call: ast.Call, aliases: dict[str, str]) -> Iterator[str]:
    """What no function of trading_core may call: clocks, unseeded randomness, loaders that run code of a file."""
    first, _, rest = ast.unparse(call.func).partition(".")
    function = f"{aliases.get(first, f'<{first}>')}.{rest}".rstrip(".")
    owner, _, last = function.rpartition(".")
    seeded = last in SEEDED and bool(call.args or call.keywords)
    if name not in CLOCK_READERS and function in CLOCKS:
        yield f"{function}() reads the clock; take `now` as an argument"
    if name not in UNSEEDED_RANDOM and owner in ("random", "numpy.random") and not seeded:
        yield f"{function}() has no seed; take `seed` as an argument"
    if function == "torch.seed":
        yield "torch.seed() draws a seed; take `seed` as an argument"
    if function == "torch.load" or last in ("load_from_checkpoint", "read_pickle", "to_pickle"):
        yield f"{function}() unpickles"
    for keyword in call.keywords:
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
            yield f"{function}(allow_pickle=...) unpickles"


def _core_problems(path: Path, root: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    name, aliases = path.relative_to(root).as_posix(), _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield node.lineno, "assert; raise an error of trading_core.errors"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, problem) for problem in _call_problems(name, node, aliases))


def violations(root: Path) -> list[str]:
    """Every broken rule, as `file:line: what is wrong`."""
    found = []
    for path in files(root):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        problems = list(_import_problems(path, root, tree))
        if path.relative_to(root).parts[0] == CORE:
            problems += _core_problems(path, root, tree)
        if (lines := text.count("\n")) > MAX_LINES:
            problems.append((lines, f"{lines} lines; split it (at most {MAX_LINES})"))
        found += [f"{path.relative_to(root).as_posix()}:{line}: {problem}" for line, problem in sorted(problems)]
    return found


def test_the_house_keeps_its_rules() -> None:
    assert len(files(REPOSITORY)) > 100  # it has really looked
    assert violations(REPOSITORY) == []


def test_every_room_of_the_design_exists_and_no_other() -> None:
    inside = {
        path.stem
        for path in (REPOSITORY / CORE).iterdir()
        if path.name not in ("__init__.py", "__pycache__") and (path.suffix == ".py" or path.is_dir())
    }
    designed = set(ALLOWED) - {"dags", "plugins", "launcher"}
    assert designed - LATER <= inside
    assert inside <= designed
    assert all((REPOSITORY / top).is_dir() for top in ("dags", "plugins", "launcher"))


def test_the_table_has_no_circle() -> None:
    """One way means: from no room do the arrows of the table lead back to it."""
    done: set[str] = set()
    while len(done) < len(ALLOWED):
        ready = {name for name, to in ALLOWED.items() if name not in done and to <= done}
        assert ready, f"in a circle, or after one: {sorted(set(ALLOWED) - done)}"
        done |= ready


# --- the check itself -------------------------------------------------------------------------------------------------


def _plant(root: Path, name: str, text: str) -> list[str]:
    """A small clean house with one more file in it, checked."""
    clean = {
        "trading_core/__init__.py": '__version__ = "0"\n',
        "trading_core/errors.py": "class TradingError(Exception): ...\n",
        "trading_core/sessions.py": "def f():\n    import exchange_calendars\n",
        "trading_core/pipelines/__init__.py": "from trading_core import __version__\n",
        "trading_core/portfolio/risk.py": "import numpy as np\nrng = np.random.default_rng(7)\n",
        "trading_core/market/__init__.py": "",
        "plugins/session_timetable.py": "import airflow\n",
        "dags/daily.py": "from session_timetable import X\n\ndef task():\n    from trading_core.pipelines import trade\n",
        "launcher/job.py": "from trading_core.pipelines import models\n",
    }
    for path, content in {**clean, name: text}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return violations(root)


def test_a_clean_house_has_no_violation(tmp_path: Path) -> None:
    assert _plant(tmp_path, "trading_core/costs.py", "from trading_core import errors\n") == []


PLANTED = [
    ("trading_core/portfolio/bad.py", "from trading_core.market import yahoo\n", 1, "portfolio may not import market"),
    (
        "trading_core/portfolio/bad.py",
        "def f():\n    import trading_core.market\n",
        2,
        "portfolio may not import market",
    ),
    ("trading_core/portfolio/bad.py", "from trading_core import market\n", 1, "portfolio may not import market"),
    ("trading_core/errors.py", "import trading_core.sessions\n", 1, "errors may not import sessions"),
    ("trading_core/market/bad.py", "import session_timetable\n", 1, "market may not import plugins"),
    ("trading_core/market/bad.py", "import launcher.job\n", 1, "market may not import launcher"),
    ("trading_core/market/bad.py", "from . import yahoo\n", 1, "relative import"),
    (
        "trading_core/market/bad.py",
        "import importlib\nimportlib.import_module('torch')\n",
        2,
        "torch may be imported in",
    ),
    ("trading_core/market/bad.py", "def f(n):\n    return __import__(n)\n", 2, "imports a computed name"),
    (
        "dags/bad.py",
        "from trading_core.pipelines import trade\n",
        1,
        "dags may import pipelines only inside a function",
    ),
    ("dags/bad.py", "def f():\n    import trading_core.sessions\n", 2, "dags may not import sessions"),
    ("plugins/bad.py", "import trading_core.sessions\n", 1, "plugins may import sessions only inside a function"),
    ("launcher/bad.py", "import airflow\n", 1, "airflow may be imported in dags, plugins only"),
    ("trading_core/pipelines/bad.py", "import torch.nn\n", 1, "torch may be imported in"),
    ("trading_core/market/bad.py", "def f():\n    from yfinance import Ticker\n", 2, "yfinance may be imported in"),
    ("trading_core/market/bad.py", "import pickle\n", 1, "pickle may be imported in no file only"),
    ("trading_core/models/bad.py", "import torch\ntorch.load('x', weights_only=True)\n", 2, "torch.load() unpickles"),
    ("trading_core/market/bad.py", "import numpy as np\nnp.load('x', allow_pickle=True)\n", 2, "allow_pickle"),
    ("trading_core/market/bad.py", "assert 1\n", 1, "assert"),
    ("trading_core/market/bad.py", "import datetime\ndatetime.datetime.now()\n", 2, "reads the clock"),
    ("trading_core/market/bad.py", "from datetime import UTC, datetime\nx = datetime.now(UTC)\n", 2, "reads the clock"),
    ("trading_core/market/bad.py", "from datetime import date\nx = date.today()\n", 2, "reads the clock"),
    ("trading_core/market/bad.py", "import numpy as np\nr = np.random.default_rng()\n", 2, "has no seed"),
    ("trading_core/market/bad.py", "import numpy as np\nr = np.random.normal(3)\n", 2, "has no seed"),
    ("trading_core/market/bad.py", "import random\nx = random.random()\n", 2, "has no seed"),
    ("trading_core/market/bad.py", "from numpy.random import default_rng\nr = default_rng()\n", 2, "has no seed"),
    ("trading_core/market/bad.py", "from time import time\nx = time()\n", 2, "reads the clock"),
    ("trading_core/models/registry.py", "NAMES = ['trading_core.market.yahoo']\n", 1, "models may not import market"),
    ("trading_core/market/bad.py", "x = 1\n" * 501, 501, "split it"),
    ("trading_core/surprise/x.py", "import trading_core.errors\n", 1, "surprise may not import errors"),
]


@pytest.mark.parametrize(("name", "text", "line", "problem"), PLANTED, ids=[f"{n}-{p}"[:60] for n, _, _, p in PLANTED])
def test_a_planted_violation_is_found(tmp_path: Path, name: str, text: str, line: int, problem: str) -> None:
    found = _plant(tmp_path, name, text)
    assert len(found) == 1
    assert found[0].startswith(f"{name}:{line}: ")
    assert problem in found[0]


def test_an_import_for_type_checkers_alone_counts_as_late_but_counts(tmp_path: Path) -> None:
    head = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    assert _plant(tmp_path, "dags/fine.py", f"{head}from trading_core.pipelines.workspace import W\n") == []
    found = _plant(tmp_path, "trading_core/market/bad.py", f"{head}from trading_core.pipelines import W\n")
    assert found == ["trading_core/market/bad.py:3: market may not import pipelines"]
