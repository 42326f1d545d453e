"""A search over hyper-parameters: the space, a point of it, the record of each trial, the table of all.

A space is a mapping of keys to distributions, as a YAML file holds it::

    learning_rate: {loguniform: [5e-4, 5e-3]}    # low and high; as likely between 1 and 2 as between 2 and 4
    temperature: {uniform: [0.5, 1.5]}           # low and high
    dropout: {quniform: [0.0, 0.5, 0.1]}         # low, high and step
    n_layers: {randint: [1, 4]}                  # whole numbers, both ends included
    hidden_size: {choice: [64, 128]}             # any values

A trial's folder holds ``trial.json``, the fields of :class:`Trial`, and
``epochs.jsonl``, one line for each validation.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.reporting.metrics import metric_title

__all__ = [
    "STATES",
    "Domain",
    "Trial",
    "best_trial",
    "parse_space",
    "read_trial",
    "sample",
    "short",
    "trials_csv",
    "trials_table",
    "write_trial",
]

# planned: has its values; running: or was, when the sweep was interrupted; stopped: by the scheduler, as not promising
STATES = ("planned", "running", "finished", "stopped", "failed")

TRIAL_FILE, EPOCHS_FILE = "trial.json", "epochs.jsonl"


# -- the space ---------------------------------------------------------------


@dataclass(frozen=True)
class Domain:
    """A distribution of one key.

    Attributes:
        kind: its name, one of ``DISTRIBUTIONS``.
        arguments: what stands behind the name.
    """

    kind: str
    arguments: tuple

    @property
    def extremes(self) -> tuple:
        """Values that, if they are allowed, all are: both ends, or every choice."""
        return self.arguments if self.kind == "choice" else self.arguments[:2]


def _numbers(count: int, above: float = -math.inf, whole: bool = False) -> Any:
    def accepts(arguments: tuple) -> bool:
        return (
            len(arguments) == count
            and all(isinstance(a, Real) and not isinstance(a, bool) and math.isfinite(a) for a in arguments)
            and above < arguments[0] < arguments[1]
            and all(step > 0 and _multiples(arguments[:2], step) for step in arguments[2:])
            and (not whole or all(isinstance(a, int) for a in arguments))
        )

    return accepts


def _multiples(values: tuple, step: float) -> bool:
    return all(math.isclose(value / step, round(value / step), abs_tol=1e-9) for value in values)


# name -> (what it takes in words, as a test)
DISTRIBUTIONS = {
    "choice": ("a list of values", lambda arguments: len(arguments) > 0),
    "uniform": ("[low, high] with low below high", _numbers(2)),
    "loguniform": ("[low, high] with low above 0 and below high", _numbers(2, above=0.0)),
    "quniform": ("[low, high, step] with low below high, both multiples of the step", _numbers(3)),
    "randint": ("[low, high] in whole numbers with low below high", _numbers(2, whole=True)),
}

_EXAMPLES = {
    "choice": "{choice: [64, 128]}",
    "uniform": "{uniform: [0.1, 0.5]}",
    "loguniform": "{loguniform: [5e-4, 5e-3]}",
    "quniform": "{quniform: [0.0, 0.5, 0.1]}",
    "randint": "{randint: [1, 4]}",
}


def parse_space(raw: Any, source: str | Path) -> dict[str, Domain]:
    """Check a space as YAML gives it.

    Args:
        raw: what the file holds.
        source: the file's name, for messages.

    Raises:
        InputError: nothing in it, no distribution, an unknown one, or arguments it does not take.
    """
    if isinstance(raw, str) and len(raw.split()) > 2 and raw.split()[1] in DISTRIBUTIONS:
        key, kind = raw.split()[:2]
        raise InputError(
            f"{source} is written for RecBole's own tuner ({key} {kind} ..): write YAML, the values themselves and not "
            f"their logarithms, such as `{key}: {_EXAMPLES[kind]}`."
        )
    if not isinstance(raw, Mapping) or not raw:
        raise InputError(f"{source} holds no space: write lines such as `learning_rate: {{loguniform: [5e-4, 5e-3]}}`.")
    space = {}
    for key, entry in raw.items():
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise InputError(
                f"{key} in {source} is {entry!r}, but must be one distribution, such as {{choice: [1, 2]}}."
            )
        ((kind, arguments),) = entry.items()
        if kind not in DISTRIBUTIONS:
            near = difflib.get_close_matches(str(kind), DISTRIBUTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(DISTRIBUTIONS)}."
            raise InputError(f"{key} in {source} has the unknown distribution {kind!r}: {hint}")
        words, accepts = DISTRIBUTIONS[kind]
        if not isinstance(arguments, list) or not accepts(tuple(arguments)):
            raise InputError(f"{key} in {source}: {kind} takes {words}, not {arguments!r}.")
        space[str(key)] = Domain(kind, tuple(arguments))
    return space


def sample(space: Mapping[str, Domain], seed: int, number: int) -> dict[str, Any]:
    """The values of trial ``number``: always the same for the same seed, whichever trials are drawn before."""
    rng = np.random.default_rng([seed, number])
    return {key: _draw(domain, rng) for key, domain in space.items()}


def _draw(domain: Domain, rng: np.random.Generator) -> Any:
    if domain.kind == "choice":
        return domain.arguments[rng.integers(len(domain.arguments))]
    low, high = domain.extremes
    if domain.kind == "randint":
        return int(rng.integers(low, high, endpoint=True))
    if domain.kind == "loguniform":
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))
    value = rng.uniform(low, high)
    if domain.kind == "quniform":
        step = domain.arguments[2]
        value = round(round(value / step) * step, 12)  # 12 digits: 0.3, not 0.30000000000000004
    return float(value)


# -- trials ------------------------------------------------------------------


@dataclass
class Trial:
    """One point of the space and what became of it.

    Attributes:
        number: from 1, in the order in which the search chose them.
        parameters: key -> value.
        state: one of ``STATES``.
        error: of a failed one, in one sentence.
        valid: metrics of the best epoch, where it finished.
        checkpoint: of the best epoch, relative to the trial's folder, where it finished.
        nodes: where it ran, one entry for each start.
        epochs: for each validation ``epoch`` (from 1), ``valid`` (the metric that selects) and ``seconds`` so far.
    """

    number: int
    parameters: dict[str, Any]
    state: str = "planned"
    error: str = ""
    valid: dict[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    nodes: list[str] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)

    def best(self, bigger: bool) -> dict[str, float] | None:
        """The line of the best epoch, None if there is none with a number."""
        lines = [line for line in self.epochs if math.isfinite(line["valid"])]
        return (max if bigger else min)(lines, key=lambda line: line["valid"], default=None)


def write_trial(folder: Path, trial: Trial) -> None:
    """Write ``trial.json``; the epochs have a file of their own, to which lines are appended."""
    record = {key: value for key, value in asdict(trial).items() if key != "epochs"}
    write_text(folder / TRIAL_FILE, json.dumps(record, indent=1) + "\n")


def read_trial(folder: Path) -> Trial:
    """The trial of a folder; a last line that a kill has torn is left out.

    Raises:
        InputError: the folder holds no trial.
    """
    try:
        trial = Trial(**json.loads((folder / TRIAL_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as fault:
        raise InputError(f"{folder} holds no trial ({fault}): remove the folder.") from fault
    if (folder / EPOCHS_FILE).is_file():
        for line in (folder / EPOCHS_FILE).read_text(encoding="utf-8").splitlines():
            try:
                trial.epochs.append(json.loads(line))
            except ValueError:
                break
    return trial


def best_trial(trials: Sequence[Trial], bigger: bool) -> Trial | None:
    """The best of those that ended well; of equals the first. A stopped one has no finished training to show."""
    finished = [trial for trial in trials if trial.state == "finished" and trial.best(bigger)]
    return (max if bigger else min)(finished, key=lambda trial: trial.best(bigger)["valid"], default=None)


# -- tables ------------------------------------------------------------------


def short(value: Any) -> str:
    """A value as a person reads it: four digits of a float."""
    return format(value, ".4g") if isinstance(value, float) else str(value)


def trials_table(trials: Sequence[Trial], metric: str, bigger: bool, form: str = "pipe") -> str:
    """All trials, the best in bold, and under them the errors of those that failed.

    Args:
        trials: in the order in which they are to stand.
        metric: the name of the one that selects.
        bigger: whether more of it is better.
        form: a format of tabulate; only "pipe" (Markdown) has bold.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.parameters))
    winner, lines = best_trial(trials, bigger), []
    for trial in trials:
        best = trial.best(bigger)
        shown = [format(best["valid"], ".4f"), str(best["epoch"])] if best else ["-", "-"]
        if trial is winner and form == "pipe":
            shown[0] = f"**{shown[0]}**"
        last = trial.epochs[-1] if trial.epochs else None
        lines.append(
            [str(trial.number), trial.state, *(short(trial.parameters.get(key, "-")) for key in keys), *shown]
            + ([str(last["epoch"]), format(last["seconds"], ".1f")] if last else ["0", "-"])
        )
    headings = ["Trial", "State", *keys, f"valid {metric_title(metric)}", "best epoch", "epochs", "seconds"]
    align = ["right", "left"] + ["right"] * (len(headings) - 2)
    table = tabulate(lines, headings, tablefmt=form, colalign=align, disable_numparse=True)
    errors = [f"Trial {trial.number} failed: {trial.error}" for trial in trials if trial.error]
    return "\n\n".join([table, *errors]) + "\n"


def trials_csv(trials: Sequence[Trial], metric: str, bigger: bool) -> str:
    """The same, unrounded, with every metric of finished trials, checkpoints and errors; what is not known is empty."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.parameters))
    metrics = sorted({name for trial in trials for name in trial.valid})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["trial", "state", *keys, f"best_{metric}", "best_epoch", "epochs", "seconds"]
        + [f"valid_{name}" for name in metrics]
        + ["checkpoint", "nodes", "error"]
    )
    for trial in trials:
        best, last = trial.best(bigger) or {}, trial.epochs[-1] if trial.epochs else {}
        writer.writerow(
            [trial.number, trial.state, *(trial.parameters.get(key, "") for key in keys)]
            + [best.get("valid", ""), best.get("epoch", ""), last.get("epoch", ""), last.get("seconds", "")]
            + [trial.valid.get(name, "") for name in metrics]
            + [trial.checkpoint, " ".join(trial.nodes), trial.error]
        )
    return text.getvalue()
