"""A run's own log: what RecBole's logger says from the first training to the last table."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["log_into", "log_of_its_own"]


class _RunLog(logging.FileHandler):
    """One of ours, among the handlers of the root logger."""


def log_into(file: Path) -> None:
    """Let RecBole's logger, the root logger, write into a run's folder too, and into no other run's.

    To be called after RecBole's ``init_logger``, which does nothing where the root logger has a handler already.
    """
    logger = logging.getLogger()
    if any(handler.baseFilename == str(file.resolve()) for handler in _run_logs()):
        return
    _end()
    handler = _RunLog(file.resolve())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)


@contextmanager
def log_of_its_own() -> Iterator[None]:
    """End the log with the run: what this process does afterwards is none of the run's, whose folder may be gone."""
    try:
        yield
    finally:
        _end()


def _run_logs() -> list[_RunLog]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _RunLog)]


def _end() -> None:
    for handler in _run_logs():
        logging.getLogger().removeHandler(handler)
        handler.close()
