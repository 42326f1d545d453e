"""Configuration: where our YAML files are, which keys exist, which values they may have.

RecBole accepts every key silently, so a misspelt one changes nothing and says
nothing. For our own models unknown keys and impossible values stop the run
before any data is read; ``known_keys`` offers the same check for RecBole's.

RecBole's ``Config`` itself runs ``eval`` over every string of its
``config_dict`` and of ``sys.argv`` (configurator.py:109-133). That is left as
it is; ``parse_command_line`` and ``quiet_argv`` let a script of ours read the
command line without it, so that only values that are strings by YAML's rules
ever reach it.
"""

import contextlib
import difflib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import yaml

from recbole_stream.errors import InputError
from recbole_stream.host.paths import lineage, model_files, properties_dir

__all__ = [
    "DATASET_KEYS",
    "MODELS",
    "Rule",
    "boolean",
    "check_keys",
    "check_values",
    "integer",
    "known_keys",
    "list_of_strings",
    "loaded_columns",
    "number",
    "one_of",
    "optional",
    "parse_command_line",
    "preset_file",
    "quiet_argv",
    "read_keys",
]

# The two models that the project is about; those of other papers are in ``host.rivals``.
MODELS = ("TIGER", "STREAMRec")

# Keys that decide what a filtered dataset contains and that RecBole leaves out
# when it compares a saved one with the configuration (data/utils.py:55-70).
# The first four are RecBole's own omissions; the others decide the semantic IDs.
DATASET_KEYS = [
    "data_path", "encoding", "numerical_features", "discretization",
    "text_fields", "text_encoder", "text_max_length",
    "semantic_ids_file", "tokenizer", "codebook_levels", "codebook_size", "unique_ids",
    "rq_vae_hidden_sizes", "rq_vae_latent_size", "rq_vae_epochs",
    "rq_vae_learning_rate", "rq_vae_batch_size", "rq_vae_beta",
    "letter_collaborative_weight", "letter_diversity_weight", "letter_clusters", "collaborative_epochs",
    "similar_items", "leave_out_seen",
]  # fmt: skip

# Keys that RecBole and its launchers read although none of its lists or YAML
# files names them.
_UNLISTED_KEYS = {
    "model", "dataset", "config_files", "preset", "recipe", "leave_out_seen", "max_train_seconds",
    "plugins", "nproc", "ip", "port", "world_size", "group_offset", "offset", "local_rank",
    "encoding", "reg_weight", "tail_ratio",
    "mask_ratio", "ft_ratio", "eta", "beta",  # RecBole's transforms
}  # fmt: skip

# options of other commands, ours and RecBole's, and what to do about them
_OTHER_COMMANDS = dict.fromkeys(
    ("space", "trials", "search", "scheduler"), "it belongs to run_hyper.py, which tunes one model"
) | {
    "params_file": "in RecBole's run_hyper.py it names the space of a search; here run_hyper.py takes "
    "--space=FILE.yaml with lines such as `learning_rate: {loguniform: [5e-4, 5e-3]}`",
}

# Keys of RecBole's trainers that ours do not follow, and what to do instead.
_UNUSED_KEYS = {
    "learner": "they train with AdamW",
    "clip_grad_norm": "set max_grad_norm to the greatest length of a gradient",
    "enable_amp": "set precision to bfloat16 or float32",
    "enable_scaler": "bfloat16 needs no scaling of the loss",
    "reg_weight": "set weight_decay",
    "shuffle": "they always shuffle",
    "transform": "they read histories as they are",
}


# -- where the YAML files are ------------------------------------------------


def preset_file(model: str, preset: str) -> Path | None:
    """Return the YAML that ``preset`` lays over the model's own, None for "default".

    Raises:
        InputError: the model has no such preset.
    """
    if preset == "default":
        return None
    folder = properties_dir() / "model"
    path = folder / f"{model}-{preset}.yaml"
    if not path.is_file():
        offered = ["default"] + sorted(
            overlay.stem.removeprefix(f"{model}-") for overlay in folder.glob(f"{model}-*.yaml")
        )
        raise InputError(f"preset is {preset!r}, but {model} has only: {', '.join(offered)}.")
    return path


def loaded_columns(config: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """``load_col`` as the YAML files of ours write it, under the names that a data set has for user, item and time."""
    names = {"user_id": "USER_ID_FIELD", "item_id": "ITEM_ID_FIELD", "timestamp": "TIME_FIELD"}
    columns = config["load_col"]
    if not columns or "inter" not in columns:
        return columns
    return columns | {"inter": [config[names[column]] if column in names else column for column in columns["inter"]]}


# -- keys --------------------------------------------------------------------


def read_keys(files: Iterable[Path]) -> dict[str, Any]:
    """The keys of YAML files, of which later ones win."""
    keys: dict[str, Any] = {}
    for file in files:
        keys |= yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return keys


def known_keys(model: str) -> set[str]:
    """Return every configuration key that has a meaning for ``model``.

    These are RecBole's argument lists, the keys of its general YAML files and
    of the model's own, and the keys of ours.
    """
    import recbole
    from recbole.utils import argument_list

    theirs = Path(recbole.__file__).parent / "properties"
    ours = properties_dir()
    own = model_files(model)
    # RecBole's trainers read the keys that ours do not, also where the model is from another paper
    derived = any(base.__name__ == "StagedRecommender" for base in lineage(model))
    twin = any(file.parent == ours / "model" and file.stem in MODELS for file in own)
    files = [
        theirs / "overall.yaml",
        theirs / "dataset" / "sample.yaml",
        *(theirs / "quick_start_config").glob("*.yaml"),
        *own,
        # a dictionary that serves both of our models is no typing error in either
        *(file for name in MODELS if twin for file in (ours / "model").glob(f"{name}*.yaml")),
        *(ours / "dataset").glob("*.yaml"),
    ]
    keys = set(_UNLISTED_KEYS).union(
        DATASET_KEYS,
        argument_list.general_arguments,
        argument_list.training_arguments,
        argument_list.evaluation_arguments,
        argument_list.dataset_arguments,
    )
    keys |= set(read_keys(file for file in files if file.is_file()))
    return keys - set(_UNUSED_KEYS) | set(read_keys(own)) if derived else keys


def check_keys(external: Iterable[str], known: set[str], model: str = "<Model>") -> None:
    """Check that every key the user set is one that something reads.

    Args:
        external: the keys from the user's files, dictionary and command line.
        known: what ``known_keys`` returns.
        model: the model's name, for the message only.

    Raises:
        InputError: an unknown key; the message names our models that have it, or offers the nearest known one.
    """
    for key in external:
        if key in known:
            continue
        if key in _UNUSED_KEYS:
            raise InputError(f"{key} has no effect on {model}, whose trainer is not RecBole's: {_UNUSED_KEYS[key]}.")
        owners = [name for name, keys in _own_keys().items() if key in keys]
        if owners:
            belongs = " and ".join(filter(None, [", ".join(owners[:-1]), owners[-1]]))
            raise InputError(f"Unknown key {key!r}: it belongs to {belongs}, not to {model}; leave it out.")
        if key in _OTHER_COMMANDS:
            raise InputError(f"Unknown key {key!r}: {_OTHER_COMMANDS[key]}.")
        near = difflib.get_close_matches(str(key), sorted(known), n=1)
        if near:
            raise InputError(f"Unknown key {key!r}: did you mean {near[0]!r}?")
        raise InputError(f"Unknown key {key!r}: properties/model/{model}.yaml explains the keys there are.")


def _own_keys() -> dict[str, set[str]]:
    """Name of each model of ours -> the keys of its YAML file; overlays of presets repeat some of them."""
    files = (file for file in sorted((properties_dir() / "model").glob("*.yaml")) if "-" not in file.stem)
    return {file.stem: set(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files}


# -- values ------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What a value must be: in words (``a whole number``) and as a test."""

    words: str
    accepts: Callable[[Any], bool]


def integer(minimum: int | None = None, maximum: int | None = None) -> Rule:
    """A whole number within the bounds, which are included; True and 2.0 are none."""

    def accepts(value: Any) -> bool:
        return isinstance(value, Integral) and not isinstance(value, bool) and _within(value, minimum, maximum)

    return Rule("a whole number" + _bounds(minimum, maximum), accepts)


def number(minimum: float | None = None, maximum: float | None = None, above: float | None = None) -> Rule:
    """A finite number; ``minimum`` and ``maximum`` are included, ``above`` is not."""

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, Real)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and _within(value, minimum, maximum)
            and (above is None or float(value) > above)
        )

    if above is None:
        return Rule("a number" + _bounds(minimum, maximum), accepts)
    upper = "" if maximum is None else f" and at most {maximum}"
    return Rule(f"a number above {above}{upper}", accepts)


def one_of(*choices: Any) -> Rule:
    """One of the values listed."""
    return Rule("one of " + ", ".join(map(repr, choices)), lambda value: value in choices)


def boolean() -> Rule:
    """True or False; 0 and 1 are numbers."""
    return Rule("True or False", lambda value: isinstance(value, bool))


def list_of_strings() -> Rule:
    """A list of strings, which may be empty."""
    return Rule(
        "a list of strings",
        lambda value: isinstance(value, list) and all(isinstance(entry, str) for entry in value),
    )


def optional(rule: Rule) -> Rule:
    """What ``rule`` says, or nothing (``~`` in YAML)."""
    return Rule(f"{rule.words}, or ~", lambda value: value is None or rule.accepts(value))


def check_values(config: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check every key of ``config`` that has a rule.

    Args:
        config: a mapping or RecBole's ``Config``.
        rules: key -> what its value must be.

    Raises:
        InputError: ``codebook_size is 0, but must be a whole number of at least 2.``
    """
    for key, rule in rules.items():
        if key in config and not rule.accepts(config[key]):
            raise InputError(f"{key} is {config[key]!r}, but must be {rule.words}.")


def _within(value: Any, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _bounds(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" between {minimum} and {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    return "" if maximum is None else f" of at most {maximum}"


# -- the command line --------------------------------------------------------


def parse_command_line(arguments: Iterable[str]) -> dict[str, Any]:
    """Read ``--key=value``, ``--key value`` and ``--flag`` (True) into typed values.

    Values have the types they would have in one of RecBole's YAML files
    (``1e-3`` is a number, ``[5,10]`` a list); ``None`` is accepted for ``~`` as
    on RecBole's own command line. What is no YAML value, such as the interval
    ``[5,inf)``, stays a string. Nothing is evaluated.

    Args:
        arguments: the command line without the script's name.

    Raises:
        InputError: an argument that is no option, or a key with two values.
    """
    from recbole.config import Config

    options: list[tuple[str, str | None]] = []  # a flag has no text
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, equals, text = argument[2:].partition("=")
            options.append((name, text if equals else None))
        elif options and options[-1][1] is None:
            options[-1] = options[-1][0], argument
        else:
            raise InputError(f"{argument!r} is not an option: write --key=value.")

    loader = Config._build_yaml_loader(None)
    parsed: dict[str, Any] = {}
    for name, text in options:
        value = True if text is None else _typed(text, loader)
        if name in parsed and parsed[name] != value:
            raise InputError(f"--{name} is given twice, as {parsed[name]!r} and {value!r}: keep one.")
        parsed[name] = value
    return parsed


@contextlib.contextmanager
def quiet_argv() -> Iterator[None]:
    """Hide the command line from RecBole's ``Config``.

    ``Config`` reads ``sys.argv`` wherever it is made, evaluates the values and
    drops those that contain ``=``. Ours arrive through ``config_dict`` instead.
    """
    stock = sys.argv
    sys.argv = stock[:1]
    try:
        yield
    finally:
        sys.argv = stock


def _typed(text: str, loader: type[yaml.FullLoader]) -> Any:
    if text == "":
        return ""  # --gpu_id= is RecBole's way to say "no GPU"
    if text == "None":
        return None
    try:
        value = yaml.load(text, Loader=loader)
    except yaml.YAMLError:
        return text
    if isinstance(value, (list, dict)):
        # "a: b" and "- a" are words on a command line, not YAML blocks
        return value if text.lstrip()[0] in "[{" else text
    return value if value is None or isinstance(value, (bool, int, float, str)) else text
