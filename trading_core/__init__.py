"""The library that every DAG, worker and command shares. See docs/architecture.md for the rooms and their contracts."""

__version__ = "0.1.0"
