"""Environments that peers run in, made on demand and kept under var/: they are measured, and no dependency of this program."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "var" / "bench-peers"
UV = "uv==0.13.8"  # as in the Makefile


def peer_python(name: str) -> Path:
    """The interpreter of the peer's environment; makes it when it is absent or was made from other requirements.

    Its packages are those of NAME.txt beside this file: complete, pinned, installed without looking for dependencies.
    Exits with the installer's output when it fails.
    """
    folder = FOLDER / name
    python, stamp, requirements = (
        folder / "bin" / "python",
        folder / ".installed",
        Path(__file__).with_name(f"{name}.txt"),
    )
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    print(f"Installing the environment of {name} (once) ...", flush=True)
    _call([sys.executable, "-m", "venv", "--clear", str(folder)])
    _call([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", UV])
    # uv does not read pip's configuration: what pip knows is passed on.
    links = subprocess.run(
        [str(python), "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True, check=False
    ).stdout.strip()
    found = ["--find-links", links] if links else []
    uv = [str(folder / "bin" / "uv"), "pip", "install", "-q", "--no-deps", "--python", str(python), *found]
    _call([*uv, "-r", str(requirements)])
    stamp.write_text(digest)
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
