"""Make the stock RecBole find our models, trainers, datasets and YAML files.

RecBole looks everything up by name in its own packages. ``get_model`` goes
through ``importlib`` and so honours ``sys.modules``; ``get_trainer`` and
``create_dataset`` use ``getattr`` on ``recbole.trainer`` and
``recbole.data.dataset``; only the YAML files need a hook.
"""

import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import (
    MODELS,
    check_keys,
    check_values,
    known_keys,
    loaded_columns,
    preset_file,
    read_keys,
)
from recbole_stream.host.keys import RULES, SHARED_RULES
from recbole_stream.host.paths import lineage, model_files, properties_dir
from recbole_stream.host.plugins import plugin_list, register_module, register_plugins

__all__ = ["MODELS", "check_recbole", "installed_recbole", "our_model", "properties_dir", "register"]

# modules of ``host.rivals``, each with the models of other papers that it defines
RIVALS: tuple[str, ...] = ("lookup", "late_fusion", "rearec", "latte", "rpg", "etegrec", "recr1")

SUPPORTED_RECBOLE = "1.2.1"
_INSTALL = f"`pip install --no-deps recbole=={SUPPORTED_RECBOLE}` and `pip install -r requirements.txt`"


@functools.cache
def register() -> None:
    """Repair RecBole and register everything of ours; later calls do nothing.

    Raises:
        InputError: RecBole is not installed, or not in the supported version.
    """
    check_recbole(installed_recbole())
    from recbole_stream.host.repairs import repairs

    repairs.apply()
    _hook_configuration()
    _register_classes()


def installed_recbole() -> str | None:
    """Return the version of the installed RecBole, None if there is none."""
    try:
        return metadata.version("recbole")
    except metadata.PackageNotFoundError:
        return None


def check_recbole(version: str | None) -> None:
    """Check that the installed RecBole is the one whose inside we know.

    Raises:
        InputError: with the command that installs the supported version.
    """
    if version is None:
        raise InputError(f"RecBole is not installed: run {_INSTALL}.")
    if version != SUPPORTED_RECBOLE:
        raise InputError(f"RecBole {version} is installed, but only {SUPPORTED_RECBOLE} is supported: run {_INSTALL}.")


def _register_classes() -> None:
    """Put our classes where RecBole looks for them (utils.py:50-105, data/utils.py:43-46)."""
    import recbole.data.dataset
    import recbole.trainer

    from recbole_stream.host import dataset, models, trainer

    for name in MODELS:
        sys.modules[f"recbole.model.sequential_recommender.{name.lower()}"] = models
        setattr(recbole.trainer, f"{name}Trainer", getattr(trainer, f"{name}Trainer"))
        setattr(recbole.data.dataset, f"{name}Dataset", getattr(dataset, f"{name}Dataset"))
    for name in RIVALS:
        register_module(importlib.import_module(f"recbole_stream.host.rivals.{name}"))


def _hook_configuration() -> None:
    """Lay our YAML files over RecBole's internal ones, below whatever the user sets.

    ``Config._load_internal_config_dict`` (configurator.py:237-331) knows only
    RecBole's own folder.
    """
    from recbole.config import Config
    from recbole.utils import ModelType

    stock = Config._load_internal_config_dict

    @functools.wraps(stock)
    def load_internal_config_dict(self: Config, model: str, model_class: Any, dataset: str) -> None:
        stock(self, model, model_class, dataset)
        external: dict[str, Any] = self.external_config_dict
        ours = our_model(model)
        check_values(external, SHARED_RULES)
        if model_class.type == ModelType.SEQUENTIAL and external.get("repeatable") is False:
            raise InputError(
                "repeatable is False, which RecBole has for general models only: leave it out, and set leave_out_seen "
                "to True to recommend nothing that a user has already."
            )
        if ours:
            check_keys(external, known_keys(model), model)
            self.internal_config_dict["preset"] = "default"
        for file in _overlays(model, dataset, external):
            self._update_internal_config_dict(file)
        if ours:
            if "load_col" not in external:
                self.internal_config_dict["load_col"] = loaded_columns({**self.internal_config_dict, **external})
            check_values({**self.internal_config_dict, **external}, RULES)

    resolve = Config._get_model_and_dataset

    @functools.wraps(resolve)
    def get_model_and_dataset(self: Config, model: str | type, dataset: str) -> tuple[str, type, str]:
        # in every process that is given the configuration, before the model's name has to mean something
        register_plugins(plugin_list(self.external_config_dict.get("plugins")))
        return resolve(self, model, dataset)

    Config._load_internal_config_dict = load_internal_config_dict
    Config._get_model_and_dataset = get_model_and_dataset


def our_model(model: str) -> str | None:
    """The one of this package's models that a model is or derives from."""
    names = [
        base.__name__
        for base in lineage(model)
        if (base.__module__ == "recbole_stream.host.models" and base.__name__ in MODELS)
        or base.__module__.startswith("recbole_stream.host.rivals.")
    ]
    return names[-1] if names else None


def _overlays(model: str, dataset: str, given: Mapping[str, Any]) -> Iterator[Path]:
    """Yield our YAML files for one run, the later ones overriding the earlier; ``given`` are the user's keys.

    A stock model on a data set that RecBole describes itself keeps RecBole's description: importing the
    plugin changes nobody's benchmark. ``run_recbole.py`` passes ours on to every model of its table.
    """
    import recbole

    ours, classes = our_model(model), lineage(model)
    if classes and not classes[-1].__module__.startswith("recbole."):  # whose own file RecBole has read
        yield from model_files(model)
    overlay = preset_file(ours, given.get("preset", "default")) if ours else None
    if overlay is not None:
        yield overlay
    theirs = Path(recbole.__file__).parent / "properties" / "dataset" / f"{dataset}.yaml"
    if ours or not theirs.is_file():
        yield from dataset_files(model, dataset, given)


def dataset_files(model: str, dataset: str, given: Mapping[str, Any]) -> list[Path]:
    """Our YAML of a data set, and the recipes of the model and of those it derives from; those that there are.

    A recipe holds tuned keys. The user's ``recipe`` names the folder of them, else that of the data set's YAML, else
    the folder is the data set's own. A preset other than the default has keys of its own in their place.

    Raises:
        InputError: there is no recipe of that name.
    """
    description = properties_dir() / "dataset" / f"{dataset}.yaml"
    files = [description] if description.is_file() else []
    recipes = properties_dir() / "recipe"
    keys = read_keys(files) | dict(given)
    recipe = keys.get("recipe", dataset)
    offered = sorted(folder.name for folder in recipes.iterdir() if folder.is_dir())
    if "recipe" in keys and recipe is not None and recipe not in offered:
        raise InputError(f"recipe is {recipe!r}, but there are only: {', '.join(offered)}.")
    if recipe in offered and not (our_model(model) and given.get("preset", "default") != "default"):
        tuned = [recipes / recipe / f"{base.__name__}.yaml" for base in lineage(model)]
        files += [file for file in tuned if file.is_file()]
    return files
