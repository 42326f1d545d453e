"""Exchange one expression inside somebody else's function."""

import ast
import inspect
import logging
import textwrap
import types
from collections.abc import Callable
from typing import Any

__all__ = ["edit"]


def edit(function: Callable[..., Any], replacements: dict[str, str]) -> None:
    """Exchange expressions inside a function of RecBole, in place.

    The function is compiled anew from its source with the replacements made;
    defaults, decorators and the lines shown in tracebacks stay. A function
    that does not contain an expression (someone mended their copy of RecBole)
    is left alone and named in a warning. Edits add up, because each starts
    from what the earlier ones left.
    """
    function = inspect.unwrap(function)
    source = _edited_source.get(function) or textwrap.dedent(inspect.getsource(function))
    for old, new in replacements.items():
        if old not in source:
            logging.getLogger().warning(
                "%s.%s of this RecBole is not that of 1.2.1 and stays unrepaired: %r not found.",
                function.__module__, function.__qualname__, old,
            )  # fmt: skip
        source = source.replace(old, new)
    _edited_source[function] = source
    tree = ast.parse(source)
    if function.__code__.co_freevars:  # ("__class__",): a method that calls super()
        inside = ast.parse("class _: pass")
        inside.body[0].body = tree.body
        tree = inside
    tree = ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    module = compile(tree, function.__code__.co_filename, "exec")
    function.__code__ = _find_code(module, function.__name__)


_edited_source: dict[Callable[..., Any], str] = {}


def _find_code(outer: types.CodeType, name: str) -> types.CodeType:
    """Return the code of the function ``name`` at the top level or in the class there."""
    codes = [constant for constant in outer.co_consts if isinstance(constant, types.CodeType)]
    return codes[0] if codes[0].co_name == name else _find_code(codes[0], name)
