"""The one error that every room raises when the user's input cannot be used."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that cannot be used: a key, a file, a column or a value.

    The message is one sentence that names the thing at fault and the way to
    mend it. The command line prints it without a traceback and exits with 2.
    """
