"""``python -m recbole_stream explain MODEL --users=NAME --output=page.html``: one page that shows what a model thinks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.serving.explain import Explainer
from recbole_stream.serving.explain_page import Case, explanation_page
from recbole_stream.serving.held_out import BAD, GOOD, draw_cases, standing
from recbole_stream.serving.inputs import read_histories
from recbole_stream.serving.recommender import Recommender

__all__ = ["arguments", "command"]

_MOST = 100  # histories on one page


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("model", help="folder of a model, or of a run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--users", help="names of users of the training data, with commas between them")
    source.add_argument("--histories", help="file of histories or events: .parquet, .jsonl or CSV")
    source.add_argument(
        "--cases", type=int, help=f"so many users whose held-out item ranks 1 to {GOOD}, and as many beyond {BAD}"
    )
    parser.add_argument("--held-out", action="store_true", help="hide the last item, and show where it stands")
    parser.add_argument("--seed", type=int, default=2020, help="of the draw of --cases (default: 2020)")
    parser.add_argument("--top", type=int, default=10, help="items for each (default: 10)")
    parser.add_argument("--output", required=True, help="page to write, .html")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU where there is one)")


def command(options: argparse.Namespace) -> None:
    """Write the page, and say where it is."""
    output = Path(options.output)
    if output.suffix != ".html":
        raise InputError(f"--output is {output}, but must end in .html.")
    if output.exists():
        raise InputError(f"{output} is there already: name another --output, or delete it first.")
    if options.cases is not None and not 1 <= options.cases <= _MOST // 2:
        raise InputError(f"--cases is {options.cases}, but must be from 1 to {_MOST // 2}.")
    model = Recommender.load(options.model, options.device)
    model.check_top(options.top)
    explainer = model.explainer
    held_out = options.held_out or options.cases is not None
    named = _cases(model, options) if options.cases is not None else _asked(model, options)
    if held_out:
        short = next((name for name, numbers in named if len(numbers) < 2), None)
        if short is not None:
            raise InputError(f"{short} has one item, so that none is left when it is hidden: leave out --held-out.")
    cases = [_case(model, explainer, name, numbers, held_out, options.top) for name, numbers in named]
    config = model.parts.config
    what = f"{config['model']}{' ' + config['stage'] if config['stage'] else ''} on {config['dataset']}"
    title = f"What {what} thinks"
    write_text(output, explanation_page(title, _summary(model, options, held_out), cases, len(model.items)))
    print(f"{len(cases)} histories are explained in {output}: open it in a browser.")


def _summary(model: Recommender, options: argparse.Namespace, held_out: bool) -> str:
    words = f"Seed {model.parts.config['seed']}, {len(model.items):,} items. "
    if held_out:
        words += "The last item of each history was hidden from the model. "
        if not model.leave_out_seen:
            words += "As in the run's own evaluation, items of the history are ranked with all others. "
    else:
        words += "What the history holds is not recommended. "
    if options.cases is not None:
        words += (
            f"Good cases, where its rank is 1 to {GOOD}, and bad ones, where it is beyond {BAD}: {options.cases} of each, drawn "
            f"by chance (seed {options.seed}) among all such users."
        )
    return words.strip()


def _asked(model: Recommender, options: argparse.Namespace) -> list[tuple[str, list[int]]]:
    """Names and item numbers of the histories that were asked for."""
    if options.users is not None:
        users = options.users.split(",")
        _check_count(len(users))
        return [(f"User {user}", model.history_of(user)) for user in users]
    part = next(read_histories(options.histories, _MOST + 1))
    _check_count(len(part))
    return [(f"History {name}", own) for (name, _), own in zip(part, model.numbers([items for _, items in part])[0])]


def _check_count(count: int) -> None:
    if count > _MOST:
        raise InputError(f"There are more than {_MOST} histories, too many for one page: ask for fewer.")


def _cases(model: Recommender, options: argparse.Namespace) -> list[tuple[str, list[int]]]:
    histories = [[int(item) for item in items] for items in model.parts.users["items"]]
    good, bad = draw_cases(model.explainer.ranker, histories, options.cases, options.seed, model.leave_out_seen)
    if not good and not bad:
        raise InputError("The model knows no users with two items or more: name a file by --histories.")
    kinds = [(row, "Good case") for row in good] + [(row, "Bad case") for row in bad]
    return [(kind, histories[row]) for row, kind in kinds]  # the page may be shown around: it names no user


def _case(
    model: Recommender, explainer: Explainer, name: str, numbers: Sequence[int], held_out: bool, top: int
) -> Case:
    ranker = explainer.ranker
    history = list(numbers[:-1]) if held_out else list(numbers)
    names = [model.items[item - 1] for item in history]
    # as the run itself was evaluated, so that the ranks are those of its table
    exclude_seen = model.leave_out_seen if held_out else True
    table = model.recommend([names], top, exclude_seen, explain=True)
    items: list[dict[str, Any]] = table[["item", "title", "score", "why"]].to_dict("records")
    case = Case(name, [explainer.named(item) for item in history], min(len(history), ranker.longest), items)
    case.thinking = explainer.thinking([history])[0]
    if held_out:
        target = numbers[-1]
        case.truth = explainer.named(target)
        case.standing = standing(ranker, history, target, exclude_seen)
    return case
