"""The one error that every room raises when the user's input cannot be used, and what a command says of errors."""

import sys
import traceback

__all__ = ["InputError", "report"]


class InputError(ValueError):
    """Input that cannot be used: a key, a file, a column or a value.

    The message is one sentence that names the thing at fault and the way to
    mend it. The command line prints it without a traceback and exits with 2.
    """


def report(fault: Exception, debug: bool) -> int:
    """Say on stderr why a command ends: one sentence, or the traceback where ``debug`` asks for it.

    Returns:
        the exit status: 2 for input that cannot be used, 1 for a bug, ours or a library's.
    """
    known = isinstance(fault, InputError)
    path, reason = (fault.filename, fault.strerror) if isinstance(fault, OSError) else (None, None)
    if debug:
        traceback.print_exception(fault)
    elif known:
        print(f"Error: {fault}", file=sys.stderr)
    elif path:
        print(f"Error: {path} cannot be used ({reason}): name another path (--debug shows where)", file=sys.stderr)
    else:
        words = " ".join(str(fault).split()) or type(fault).__name__
        print(f"Error: {words} (--debug shows where)", file=sys.stderr)
    return 2 if known else 1
