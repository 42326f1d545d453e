"""Replace single expressions in the source of a RecBole function."""

import ast
import inspect
import logging
import textwrap
import types
from collections.abc import Callable
from typing import Any

__all__ = ["edit"]


def edit(function: Callable[..., Any], replacements: dict[str, str]) -> None:
    """Replace expressions in the source of a function of RecBole, and compile it anew in place.

    Defaults, decorators and the line numbers in tracebacks stay. Where an
    expression is not in the source, because this copy of RecBole was changed,
    the function is left as it is and a warning names it. A function may be
    edited several times: each edit starts from the result of the one before.

    Args:
        function: changed in place.
        replacements: old expression -> new expression.
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
    if function.__code__.co_freevars:  # ("__class__",): a method that calls super() has to be compiled inside a class
        inside = ast.parse("class _: pass")
        inside.body[0].body = tree.body  # type: ignore[attr-defined]
        tree = inside
    tree = ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    module = compile(tree, function.__code__.co_filename, "exec")
    function.__code__ = _find_code(module, function.__name__)


_edited_source: dict[Callable[..., Any], str] = {}


def _find_code(outer: types.CodeType, name: str) -> types.CodeType:
    """Return the code of the function ``name`` at the top level or in the class there."""
    codes = [constant for constant in outer.co_consts if isinstance(constant, types.CodeType)]
    return codes[0] if codes[0].co_name == name else _find_code(codes[0], name)
