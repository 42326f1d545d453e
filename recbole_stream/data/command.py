"""What the commands that make atomic files share: one sentence for what cannot be used, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from recbole_stream.errors import InputError

__all__ = ["exit_code"]


def exit_code(action: Callable[[], None]) -> int:
    """Run a command: 0, or 2 after one sentence about the input on stderr."""
    try:
        action()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}; free or correct the path and run again.", file=sys.stderr)
        return 2
    return 0
