"""The environment that Qlib runs in, made on demand and kept under var/: it is measured, and no dependency of this program."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("qlib.txt")
FOLDER = ROOT / "var" / "bench-peers" / "qlib"
UV = "uv==0.13.8"  # as in the Makefile


def qlib_python() -> Path:
    """The interpreter of the environment; makes it when it is absent or was made from other requirements."""
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / ".installed"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    print("Installing the environment of Qlib (once) ...", flush=True)
    _call([sys.executable, "-m", "venv", "--clear", str(FOLDER)])
    _call([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", UV])
    # uv does not read pip's configuration: what pip knows is passed on.
    links = subprocess.run(
        [str(python), "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    ).stdout.strip()
    found = ["--find-links", links] if links else []
    uv = [str(FOLDER / "bin" / "uv"), "pip", "install", "-q", "--no-deps", "--python", str(python), *found]
    _call([*uv, "-r", str(REQUIREMENTS)])
    stamp.write_text(digest)
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
