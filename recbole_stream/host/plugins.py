"""Models of the user's own: the recommenders of a file, which RecBole then finds by their names."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from recbole_stream.errors import InputError

__all__ = ["plugin_list", "register_module", "register_plugins"]


def plugin_list(value: str | Iterable[str] | None) -> list[str]:
    """The files of the key ``plugins``: a list, or one string with commas between them."""
    if value is None:
        return []
    return value.replace(",", " ").split() if isinstance(value, str) else [str(file) for file in value]


def register_plugins(files: Iterable[str]) -> None:
    """Let RecBole find the models of these files, and their trainers and datasets; files known before do nothing.

    A class ``<Model>Trainer`` or ``<Model>Dataset`` beside a model is its own; without one it has those of the model
    that it derives from.

    Raises:
        InputError: a file is missing, fails, has no model, or has one of a name that is taken.
    """
    for file in files:
        module = _load(Path(file))
        if not register_module(module):
            raise InputError(f"{file} has no model: derive a class from TIGER, STREAMRec or a recommender of RecBole.")


def register_module(module: ModuleType) -> list[type]:
    """Let RecBole find the models that a module defines, which are returned.

    Raises:
        InputError: one has a name that is taken.
    """
    import recbole.data.dataset
    import recbole.trainer
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.utils import get_model

    models = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, AbstractRecommender) and value.__module__ == module.__name__
    ]
    for model in models:
        place = f"recbole.model.sequential_recommender.{model.__name__.lower()}"
        if sys.modules.get(place) is not module:
            try:
                get_model(model.__name__)
            except (ValueError, ImportError):  # the last place where RecBole looks needs lightgbm
                sys.modules[place] = module
            except AttributeError:
                raise _taken(module, model) from None  # another one, but for capitals
            else:
                raise _taken(module, model)
        for suffix, house in (("Trainer", recbole.trainer), ("Dataset", recbole.data.dataset)):
            inherited = [getattr(house, f"{base.__name__}{suffix}", None) for base in model.__mro__[1:]]
            own = getattr(module, f"{model.__name__}{suffix}", None)
            found = next((value for value in [own, *inherited] if value is not None), None)
            if found is not None:
                setattr(house, f"{model.__name__}{suffix}", found)
    return models


def _taken(module: ModuleType, model: type) -> InputError:
    return InputError(
        f"{module.__file__} calls a model {model.__name__}, as one is called already: give it another name."
    )


def _load(file: Path) -> ModuleType:
    """The module of a file, under the file's name, so that other processes can read its pickled classes."""
    file = file.resolve()
    if not file.is_file():
        raise InputError(f"There is no file {file} with models: correct --plugins.")
    known = sys.modules.get(file.stem)
    if known is not None:
        if getattr(known, "__file__", None) and Path(known.__file__).resolve() == file:
            return known
        raise InputError(f"{file} cannot be loaded as {file.stem!r}, which is another module: rename the file.")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None:
        raise InputError(f"{file} is no Python file: name one that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # for what it imports from beside itself
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        del sys.modules[file.stem]
        words = " ".join(str(fault).split())
        raise InputError(f"{file} cannot be imported ({type(fault).__name__}: {words}): correct it.") from fault
    return module
