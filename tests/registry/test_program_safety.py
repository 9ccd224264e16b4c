"""No line of the program runs code that it finds in a file, and no dependency that is known to."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[2]
# Whatever runs code that it finds in a file or a text, by the full name or its beginning.
RUNS_CODE = (
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "skops"),
    *("torch.load", "torch.save", "torch.jit.load", "torch.export.load", "torch.package", "torch.hub"),
    *(
        "torch.serialization",
        "pandas.read_pickle",
        "numpy.lib.format",
        "yaml.load",
        "yaml.load_all",
        "yaml.unsafe_load",
    ),
    *("yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *(f"mlflow.{flavour}" for flavour in ("pyfunc", "pytorch", "sklearn", "lightgbm", "transformers", "models")),
)
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"load_from_checkpoint", "read_pickle", "to_pickle", "allow_pickle", "save_checkpoint"}
# Arguments and the only value they may have; Lightning reads what `ckpt_path` names by pickle.
KEYWORDS = {"allow_pickle": "False", "ckpt_path": "None", "weights_only": "True", "enable_checkpointing": "False"}


def code_runners(tree: ast.AST) -> list[str]:
    """`line: name` of every mention, called or handed on, of what RUNS_CODE and its like name."""
    aliases: dict[str, str] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
            found += [(node.lineno, a.name) for a in node.names if _named(a.name)]
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            found += [(node.lineno, f"{node.module}.{a.name}") for a in node.names if _named(f"{node.module}.{a.name}")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            name = f"{aliases[first]}.{rest}" if first in aliases else ""
            found += [(node.lineno, name or node.attr)] if _named(name) or node.attr in METHODS else []
        elif isinstance(node, ast.Name) and node.id in BUILTINS and isinstance(node.ctx, ast.Load):
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.keyword) and KEYWORDS.get(node.arg or "", ast.unparse(node.value)) != ast.unparse(
            node.value
        ):
            found.append((node.lineno, f"{node.arg}={ast.unparse(node.value)}"))
    return [f"{line}: {name}" for line, name in sorted(set(found))]


def _named(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in RUNS_CODE)


def test_nothing_in_the_program_runs_code_that_it_finds_in_a_file() -> None:
    files = sorted((REPOSITORY / "trading_core").rglob("*.py"))
    assert len(files) > 150  # it has really looked
    found = {str(path.relative_to(REPOSITORY)): code_runners(ast.parse(path.read_text())) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import pickle", "1: pickle"),
        ("from joblib import load", "1: joblib.load"),
        ("def f():\n    import dill as d", "2: dill"),
        ("import torch\nread = torch.load", "2: torch.load"),
        ("from torch import load as read", "1: torch.load"),
        ("import torch as t\nt.jit.load('x')", "2: torch.jit.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "2: allow_pickle=True"),
        ("import numpy as np\nflag = 1\nnp.load('x', allow_pickle=flag)", "3: allow_pickle=flag"),
        ("Model.load_from_checkpoint('x')", "1: load_from_checkpoint"),
        ("import mlflow\nmlflow.pyfunc.load_model('x')", "2: mlflow.pyfunc"),
        ("from mlflow.pytorch import load_model", "1: mlflow.pytorch.load_model"),
        ("trainer.fit(m, ckpt_path='x')", "1: ckpt_path='x'"),
        ("import pandas as pd\nread = pd.read_pickle", "2: pandas.read_pickle"),
        ("import yaml\nyaml.load(x, Loader=l)", "2: yaml.load"),
        ("eval(text)", "1: eval"),
        ("run = exec", "1: exec"),
    ],
)
def test_the_search_finds_what_is_planted(text: str, expected: str) -> None:
    assert expected in code_runners(ast.parse(text))


def test_the_search_leaves_what_is_harmless() -> None:
    lines = (
        "import yaml, re, torch, numpy as np",
        "yaml.safe_load(x)",
        "model.eval()",
        "re.compile('x')",
        "np.load('x', allow_pickle=False)",
        "torch.compile(f)",
        "class Options: compile: bool = False",
    )
    assert code_runners(ast.parse("\n".join(lines))) == []


def test_lightning_is_no_version_that_runs_code_from_checkpoints() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line).specifier for line in project["dependencies"] if Requirement(line).name == "lightning"]
    assert len(wanted) == 1
    assert not any(wanted[0].contains(old) for old in ("2.6.1", "2.6.2", "2.6.3", "2.6.5"))
    assert wanted[0].contains("2.6.6")
    locked = re.findall(r"^lightning==(\S+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert len(locked) == 1
    assert wanted[0].contains(locked[0])
    assert wanted[0].contains(Version(version("lightning")))
