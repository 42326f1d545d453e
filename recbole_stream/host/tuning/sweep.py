"""The command of a sweep: options in; trials under Ray Tune; a table, a picture and the best configuration out."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from recbole.config import Config
from recbole.utils import get_model

from recbole_stream.cluster import check_ray
from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.host.checks import check_share, locate_data
from recbole_stream.host.configuration import check_keys, check_values, known_keys
from recbole_stream.host.keys import RULES
from recbole_stream.host.models import STREAMRec
from recbole_stream.host.paths import properties_dir
from recbole_stream.host.plugins import plugin_list
from recbole_stream.host.registration import our_model
from recbole_stream.host.run.commands import guarded
from recbole_stream.host.run.job import configure, given_keys
from recbole_stream.host.tuning.plot import plot_search
from recbole_stream.host.tuning.space import Domain, Trial, best_trial, parse_space, trials_csv, trials_table
from recbole_stream.host.tuning.trial import Sweep, read_sweep

__all__ = ["main", "tune"]

USAGE = """\
python run_hyper.py --model=STREAMRec [--dataset=ml-100k] [--trials=10] [--key=value ...]

--model=NAME            one model: ours or any of RecBole's
--dataset=NAME          as in run_recbole.py
--space=FILE            what to search (default: properties/tune/NAME.yaml)
--trials=N              points of the space to train (default: 10)
--search=random         or hyperopt: TPE, which learns from the trials before
--scheduler=asha        stops trials that are not promising (default); none: trains all to the end
--cpus-per-trial=N      (default: 1); as many trials run at once as fit
--gpus-per-trial=N      (default: 0); 0.5 lets two trials share one
--address=auto          the Ray cluster this machine belongs to, or HOST:PORT (default: this machine alone)
--output_dir=FOLDER     where the sweep goes (default: results/tune-...); on a cluster every machine must see it
--resume=FOLDER         go on with a sweep that was interrupted; --trials=M adds trials
--config_files=F,G      YAML files with further keys
--debug                 show the traceback of an error
--key=value             a key of every trial, as in run_recbole.py; one of the space is then not searched"""

DEFAULTS: dict[str, Any] = {"dataset": "ml-100k", "trials": 10, "search": "random", "scheduler": "asha"} | {
    "cpus-per-trial": 1, "gpus-per-trial": 0
}  # fmt: skip
# where and how much, not what: may be others when a sweep goes on
MOVABLE = ("address", "trials", "cpus-per-trial", "gpus-per-trial")
OPTIONS = {*DEFAULTS, *MOVABLE, "model", "space", "output_dir", "resume", "config_files"}
# belong to the machine, not to what was found
MACHINE_KEYS = {"data_path", "cache_dir", "use_gpu", "gpu_id", "show_progress", "worker", "nproc", "state"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Search hyper-parameters; returns the exit status. The arguments are by default those of the process."""
    return guarded(arguments, USAGE, tune)


def tune(options: Mapping[str, Any], command: Sequence[str]) -> list[Trial]:
    """Run a sweep, or go on with one; write and print what came of it.

    Args:
        options: keys and typed values; ``model`` and ``config_files`` are lists.
        command: as it was typed, for the record.

    Returns:
        the trials, by number.

    Raises:
        InputError: something the user gave cannot be used, and nothing was trained; or every trial failed.
    """
    if options.get("resume"):
        sweep = _resumed(dict(options))
    else:
        sweep = _planned(dict(options), list(command))
    check_ray("Tuning")
    if sweep.search == "hyperopt" and importlib.util.find_spec("hyperopt") is None:
        raise InputError("--search=hyperopt needs hyperopt: run `pip install hyperopt`, or take --search=random.")
    from recbole_stream import cluster
    from recbole_stream.host.tuning import ray as ray_tuning  # imports Ray

    cluster.connect(options.get("address"), sweep.cpus, sweep.gpus)
    sweep.write()
    try:
        with FileLock(sweep.folder / ".lock", timeout=0):
            print(f"{sweep.trials} trials of {sweep.model} on {sweep.dataset}, into {sweep.folder}", flush=True)
            try:
                ray_tuning.run_trials(sweep)
            except KeyboardInterrupt:
                _write(sweep)
                print(f"Go on with: python run_hyper.py --resume={shlex.quote(str(sweep.folder))}", flush=True)
                raise
            return _write(sweep)
    except Timeout:
        raise InputError(f"{sweep.folder} belongs to a sweep that is still running.") from None


# -- before ------------------------------------------------------------------


def _planned(options: dict[str, Any], command: list[str]) -> Sweep:
    """A new sweep; everything that can be wrong with it comes to light here, before anything is written."""
    names = options.get("model") or []
    if len(names) != 1:
        raise InputError(f"A sweep tunes one model, but --model names {len(names)}: write --model=STREAMRec.")
    (model,) = names
    settings = DEFAULTS | {key: value for key, value in options.items() if key in OPTIONS}
    _check_settings(settings)
    dataset = str(settings["dataset"])
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(str(settings.get("output_dir") or f"results/tune-{dataset}-{model}-{stamp}")).resolve()
    if (folder / "sweep.json").exists():
        raise InputError(
            f"{folder} already holds a sweep: choose another --output_dir, or go on with --resume={folder}."
        )

    given = given_keys({key: value for key, value in options.items() if key not in OPTIONS or key == "config_files"})
    keys = _absolute(locate_data({"data_path": "dataset"} | given, dataset))
    config = configure(model, [model], dataset, keys, folder)
    if config["cache_dir"]:  # one for all trials
        keys["cache_dir"] = str(Path(config["cache_dir"]).resolve())
    raw, source = _read_space(settings.get("space"), model)
    space = parse_space(raw, source)
    check_keys(space, known_keys(model), model)
    # what the user sets comes after every YAML of ours: such a key is not searched
    space = {key: domain for key, domain in space.items() if key not in given}
    if not space:
        raise InputError(f"Every key of {source} is given a value: leave one of them free.")
    if our_model(model):
        for key, domain in space.items():
            for value in domain.extremes:
                check_values({key: value}, RULES)
    return Sweep(
        folder=folder,
        command=command,
        model=model,
        dataset=dataset,
        keys=keys,
        space={key: raw[key] for key in space},
        trials=settings["trials"],
        seed=config["seed"],
        search=settings["search"],
        scheduler=settings["scheduler"],
        cpus=settings["cpus-per-trial"],
        gpus=settings["gpus-per-trial"],
        metric=config["valid_metric"].lower(),
        bigger=config["valid_metric_bigger"],
        max_epochs=_epochs(config, space),
    )


def _resumed(options: dict[str, Any]) -> Sweep:
    """A sweep that goes on: with its own settings, but where and how much may be others."""
    sweep = read_sweep(Path(str(options.pop("resume"))))
    changed = [key for key in options if key not in MOVABLE]
    if changed:
        raise InputError(f"A resumed sweep keeps its settings: leave --{changed[0]} out.")
    _check_settings(DEFAULTS | options)
    sweep.trials = options.get("trials", sweep.trials)
    sweep.cpus = options.get("cpus-per-trial", sweep.cpus)
    sweep.gpus = options.get("gpus-per-trial", sweep.gpus)
    return sweep


def _check_settings(settings: Mapping[str, Any]) -> None:
    for key, choices in (("search", ("random", "hyperopt")), ("scheduler", ("asha", "none"))):
        if settings[key] not in choices:
            raise InputError(f"--{key} is {settings[key]!r}, but must be {' or '.join(choices)}.")
    trials, cpus, gpus = (settings[key] for key in ("trials", "cpus-per-trial", "gpus-per-trial"))
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise InputError(f"--trials is {trials!r}, but must be a whole number of at least 1.")
    check_share(cpus, gpus)


def _read_space(file: str | None, model: str) -> tuple[dict[str, Any], Path]:
    """What the YAML file of the space holds, and its name."""
    path = Path(file) if file else properties_dir() / "tune" / f"{model}.yaml"
    if not path.is_file():
        hint = "" if file else f": {model} comes without one, so write what to search and name it with --space=FILE"
        raise InputError(f"There is no space {path}{hint}.")
    # RecBole's reader knows that 1e-3 is a number
    loader = Config._build_yaml_loader(None)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader), path
    except yaml.YAMLError as fault:
        raise InputError(f"{path} is not YAML ({' '.join(str(fault).split())}).") from fault


def _absolute(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys whose paths are absolute: workers run in folders of their own."""
    for key, value in keys.items():
        path = key.endswith(("_path", "_dir", "start_from")) or (key == "text_encoder" and Path(str(value)).exists())
        if path and isinstance(value, str):
            keys[key] = str(Path(value).resolve())
    if "plugins" in keys:
        keys["plugins"] = [str(Path(file).resolve()) for file in plugin_list(keys["plugins"])]
    return keys


def _epochs(config: Config, space: Mapping[str, Domain]) -> int:
    """The epochs of the longest trial, all stages together."""
    staged = issubclass(get_model(config["model"]), STREAMRec)
    stages = config["stages"] if staged else ()
    keys = ["matching_epochs" if stage == "match" else f"{stage}_epochs" for stage in stages] or ["epochs"]
    return sum(int(max(space[key].extremes)) if key in space else config[key] for key in keys)


# -- after -------------------------------------------------------------------


def _write(sweep: Sweep) -> list[Trial]:
    """The table, the picture and the best configuration of the trials there are; printed too.

    Raises:
        InputError: all failed.
    """
    trials, folder = sweep.read_trials(), sweep.folder
    table = trials_table(trials, sweep.metric, sweep.bigger)
    write_text(folder / "trials.md", table)
    write_text(folder / "trials.csv", trials_csv(trials, sweep.metric, sweep.bigger))
    title = f"{sweep.model} on {sweep.dataset}: {len(trials)} trials, {sweep.search} search"
    if trials:
        plot_search(trials, sweep.domains(), sweep.metric, sweep.bigger, title, folder / "search.png")
    print("\n" + trials_table(trials, sweep.metric, sweep.bigger, "simple"), flush=True)
    best = best_trial(trials, sweep.bigger)
    if best is not None:
        write_text(folder / "best.yaml", _best_yaml(sweep, best))
        print(f"Written to {folder}. The best, trial {best.number}, as a run:\n{_run_command(sweep)}", flush=True)
    elif trials and all(trial.state == "failed" for trial in trials):
        raise InputError(f"All {len(trials)} trials failed, the first because: {trials[0].error}")
    return trials


def _best_yaml(sweep: Sweep, best: Trial) -> str:
    """What run_recbole.py takes as --config_files: the keys of the sweep and the parameters of its best trial."""
    fixed = {key: value for key, value in sweep.keys.items() if key not in MACHINE_KEYS}
    score = best.best(sweep.bigger)["valid"]
    head = [
        f"# {sweep.model} on {sweep.dataset}: trial {best.number} of {sweep.trials}, valid {sweep.metric} {score:.4f}",
        f"# {_run_command(sweep)}",
    ]
    return "\n".join([*head, yaml.safe_dump(fixed | best.parameters, sort_keys=False)])


def _run_command(sweep: Sweep) -> str:
    words = ["python", "run_recbole.py", f"--model={sweep.model}", f"--dataset={sweep.dataset}"]
    if sweep.dataset != "ml-100k":  # which RecBole brings along
        words.append(f"--data_path={sweep.keys['data_path']}")
    return shlex.join([*words, f"--config_files={sweep.folder / 'best.yaml'}"])
