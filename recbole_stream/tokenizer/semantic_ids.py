"""Embeddings -> one semantic ID per item."""

from __future__ import annotations

import csv
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from recbole_stream.cache import cached_arrays, content_hash
from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.tokenizer.collisions import append_counter, group_ids, reassign, sinkhorn
from recbole_stream.tokenizer.letter import LetterOptions
from recbole_stream.tokenizer.opq import opq
from recbole_stream.tokenizer.report import collision_summary, level_usage, reconstruction_error
from recbole_stream.tokenizer.residual import Quantised, row_chunks, sum_codewords
from recbole_stream.tokenizer.rq_kmeans import rq_kmeans
from recbole_stream.tokenizer.rq_vae import RQVAEOptions, rq_vae

__all__ = [
    "METHODS",
    "UNIQUE_WAYS",
    "SemanticIDs",
    "build_semantic_ids",
    "make_unique",
    "read_semantic_ids",
    "write_semantic_ids",
]

METHODS = ("rq_kmeans", "rq_vae", "letter", "opq")
UNIQUE_WAYS = ("reassign", "counter", "sinkhorn")
_CACHE_VERSION = 2  # raise when the same embeddings and settings would give other IDs
_SINKHORN_ROWS = 1 << 15


@dataclass(frozen=True)
class SemanticIDs:
    """Every item's ID; no two are equal.

    Attributes:
        codes: int64 `[n_items, m]`, row i for item i of the tokens or embeddings given, no padding row.
        codebook_sizes: K of each level, length m; `0 <= codes[:, d] < codebook_sizes[d]`.
        report: JSON-able, see `tokenizer.report`.
    """

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    report: dict


def build_semantic_ids(
    embeddings: np.ndarray,
    *,
    method: str = "rq_kmeans",
    levels: int = 4,
    codebook_size: int = 256,
    unique: str = "reassign",
    seed: int,
    cache_dir: str | Path | None = None,
    device: str = "cpu",
    show_progress: bool = True,
    options: RQVAEOptions | None = None,
    collaborative: np.ndarray | None = None,
    letter: LetterOptions | None = None,
) -> SemanticIDs:
    """Quantises the embeddings (Eq. 5-8) and makes the IDs unique; deterministic for a seed, cached by content.

    Args:
        embeddings: z, float32 `[n_items, D]`.
        method: `rq_kmeans`, `rq_vae`, `letter` (an RQ-VAE with LETTER's losses) or `opq`, whose codes have no order.
        levels: m, the tokens of an ID; with `counter` the last of them is the counter.
        codebook_size: K of each quantised level.
        unique: `reassign`, `counter` (TIGER) or `sinkhorn` (LC-Rec), see `tokenizer.collisions`.
        seed: of every random choice.
        cache_dir: folder of the cache; None stores nothing.
        device: torch device of the quantiser.
        show_progress: progress bars.
        options: of the RQ-VAE; its defaults where None.
        collaborative: LETTER's vectors h of the items, float32 `[n_items, latent_size]`.
        letter: weights of LETTER's losses; its defaults where None.

    Raises:
        InputError: an impossible setting, more items than IDs, or embeddings that are not finite.
    """
    _check(embeddings, method, levels, codebook_size, unique)
    if method == "letter":
        letter = letter or LetterOptions()
        _check_letter(collaborative, len(embeddings), codebook_size, letter)
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
    options = options or RQVAEOptions()
    used = {} if method == "rq_kmeans" else asdict(options)
    aligned: dict = {}
    if method == "letter":
        used, aligned = used | asdict(letter), {"collaborative": collaborative, "letter": letter}

    def compute() -> tuple[dict[str, np.ndarray], dict]:
        started = time.perf_counter()
        quantised_levels = levels - 1 if unique == "counter" else levels
        if method == "rq_kmeans":
            quantised = rq_kmeans(embeddings, quantised_levels, codebook_size, seed, device, show_progress)
        elif method == "opq":
            quantised = opq(embeddings, quantised_levels, codebook_size, seed, device, show_progress)
        else:
            quantised = rq_vae(
                embeddings, quantised_levels, codebook_size, seed, options, device, show_progress, **aligned
            )
        codes, sizes, moves = make_unique(quantised, codebook_size, unique, seed)
        report = {
            "method": method,
            "unique": unique,
            "seed": seed,
            "items": len(embeddings),
            "options": used,
            **_report(quantised.codes, (codebook_size,) * quantised_levels, codes, sizes, moves),
            "reconstruction_before": _error(embeddings, quantised, quantised.codes),
            "reconstruction": _error(embeddings, quantised, codes[:, :quantised_levels]),
            "seconds": time.perf_counter() - started,
        }
        return {"codes": codes}, {"codebook_sizes": sizes, "report": report}

    settings = [method, levels, codebook_size, unique, seed, used or None]
    key = content_hash(_CACHE_VERSION, settings, embeddings, *([collaborative] if aligned else []))
    arrays, info = cached_arrays(cache_dir, "semantic_ids", key, compute)
    ids = SemanticIDs(arrays["codes"], tuple(info["codebook_sizes"]), info["report"])
    _log(ids.report)
    return ids


def _check(embeddings: np.ndarray, method: str, levels: int, codebook_size: int, unique: str) -> None:
    if method not in METHODS:
        raise InputError(f"There is no tokenizer method {method!r}: choose one of {', '.join(METHODS)}.")
    if unique not in UNIQUE_WAYS:
        raise InputError(f"There is no way {unique!r} to make IDs unique: choose one of {', '.join(UNIQUE_WAYS)}.")
    fewest = 2 if unique == "counter" else 1
    if levels < fewest or codebook_size < 2:
        raise InputError(
            f"A semantic ID needs at least {fewest} levels (with unique={unique}) and 2 codes a level: "
            f"got {levels} levels of {codebook_size}."
        )
    if embeddings.ndim != 2 or not len(embeddings):
        raise InputError(
            f"Embeddings must be a table of items by dimensions with at least one item: got {embeddings.shape}."
        )
    if unique != "counter" and len(embeddings) > codebook_size**levels:
        raise InputError(
            f"{len(embeddings)} items do not fit {levels} levels of {codebook_size} codes: "
            "raise `codebook_size` or `levels`."
        )
    for rows in row_chunks(len(embeddings)):
        broken = ~np.isfinite(embeddings[rows]).all(axis=1)
        if broken.any():
            raise InputError(
                f"The embedding of item {rows.start + int(broken.argmax())} is not finite: check the text encoder."
            )


def _check_letter(vectors: np.ndarray | None, items: int, codebook_size: int, letter: LetterOptions) -> None:
    if vectors is None or len(vectors) != items:
        known = "none" if vectors is None else f"those of {len(vectors)}"
        raise InputError(f"LETTER needs a collaborative vector of each of the {items} items: got {known}.")
    if 2 * letter.clusters > codebook_size:
        raise InputError(
            f"letter_clusters is {letter.clusters}, but {codebook_size} codewords make at most {codebook_size // 2} "
            "clusters of two: lower it."
        )


def make_unique(
    quantised: Quantised, codebook_size: int, unique: str, seed: int
) -> tuple[np.ndarray, tuple[int, ...], tuple[int, int]]:
    """Gives every item an ID of its own.

    Args:
        quantised: with codes that items may share.
        codebook_size: K of each level.
        unique: `reassign`, `counter` or `sinkhorn`.
        seed: of the last one.

    Returns:
        codes `[n, m]`, codebook sizes, and how many items moved, and moved out of their prefix.
    """
    levels = quantised.codes.shape[1]
    sizes = (codebook_size,) * levels
    if unique == "counter":
        codes, largest = append_counter(quantised.codes)
        return codes, (*sizes, largest), (0, 0)

    def distances(level: int, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        residual = quantised.latents[rows] - sum_codewords(codes[:, :level], quantised.codebooks)  # [r, d]
        codebook = quantised.codebooks[level]  # [K, d]
        squared = np.square(residual).sum(1, keepdims=True) - 2 * residual @ codebook.T + np.square(codebook).sum(1)
        return np.maximum(squared, 0)  # [r, K]

    codes = quantised.codes
    if unique == "sinkhorn":
        codes = codes.copy()
        # A large catalogue in random parts: every part uses the level's codes equally, hence so does the whole.
        parts = np.random.default_rng(seed).permutation(len(codes))
        for part in np.array_split(parts, -(-len(parts) // _SINKHORN_ROWS)):
            codes[part, -1] = sinkhorn(distances(levels - 1, part, codes[part])).argmax(axis=1)
    result = reassign(codes, sizes, distances)
    moved = int((result.codes != quantised.codes).any(axis=1).sum())
    return result.codes, sizes, (moved, result.moved_prefix)


def _error(embeddings: np.ndarray, quantised: Quantised, codes: np.ndarray) -> dict:
    return reconstruction_error(
        embeddings, lambda rows: quantised.decode(sum_codewords(codes[rows], quantised.codebooks))
    )


def _report(
    before: np.ndarray, sizes_before: tuple[int, ...], codes: np.ndarray, sizes: tuple[int, ...], moves: tuple[int, int]
) -> dict:
    return {
        "levels": level_usage(codes, sizes),
        "levels_before": level_usage(before, sizes_before),
        "collisions_before": collision_summary(before),
        "items_moved": moves[0],
        "items_moved_out_of_prefix": moves[1],
    }


def read_semantic_ids(
    path: str | Path, item_tokens: list[str], *, unique: str = "reassign", id_field: str = "item_id"
) -> SemanticIDs:
    """Your own IDs from a table: a header, the item's token and one column of codes per level.

    Codes may come from one vocabulary for all levels; each level's are
    numbered 0 .. K_d − 1 in their order. Collisions are resolved: `reassign`
    moves the later items of a shared ID to the smallest code of the last level
    that is free below their prefix (the last level grows where a prefix has
    more items than it has codes), `counter` adds a level where there are any.

    Args:
        path: UTF-8 table, separated by tabs or else commas; column names may carry a type (`item_id:token`).
        item_tokens: the data set's items; the table may hold more of them (those a k-core dropped).
        unique: `reassign` or `counter`.
        id_field: the column of the item's token.

    Raises:
        InputError: no file, no such column, a code that is no whole number of at least 0, two IDs of one
            item, or items of the data set without an ID.
    """
    if unique not in ("reassign", "counter"):
        raise InputError(
            f"`semantic_ids_file` holds codes only, no distances for unique={unique}: use reassign or counter."
        )
    started = time.perf_counter()
    table = _read_table(Path(path), id_field)
    missing = [token for token in item_tokens if token not in table]
    unknown = len(table) - (len(item_tokens) - len(missing))
    if missing:
        first_unknown = sorted(set(table) - set(item_tokens))[:3]
        strangers = f", and has IDs for {unknown} items that do not exist, such as {', '.join(first_unknown)}"
        raise InputError(
            f"{path} has no ID for {len(missing)} of the data set's {len(item_tokens)} items, {missing[0]} for one"
            f"{strangers if unknown else ''}: give every item one row."
        )
    if unknown:
        logging.getLogger().info("%s: the IDs of %d items that the data set does not use are left out.", path, unknown)
    given = np.array([table[token] for token in item_tokens], dtype=np.int64)
    compact = np.column_stack([np.unique(column, return_inverse=True)[1] for column in given.T])
    sizes = tuple(int(column.max()) + 1 for column in compact.T)
    before, sizes_before, moves = compact, sizes, (0, 0)
    if unique == "reassign":
        largest_prefix = int(np.bincount(group_ids(compact[:, :-1])).max())
        sizes = (*sizes[:-1], max(sizes[-1], largest_prefix))
        result = reassign(compact, sizes)
        codes, moves = result.codes, (result.moved, result.moved_prefix)
    else:
        codes, largest = append_counter(compact)
        codes, sizes = (codes, (*sizes, largest)) if largest > 1 else (compact, sizes)
    report = {
        "method": "file",
        "unique": unique,
        "file": str(path),
        "items": len(codes),
        "items_left_out": unknown,
        **_report(before, sizes_before, codes, sizes, moves),
        "seconds": time.perf_counter() - started,
    }
    _log(report)
    return SemanticIDs(codes, sizes, report)


def write_semantic_ids(
    path: str | Path, item_tokens: list[str], codes: np.ndarray, *, id_field: str = "item_id"
) -> None:
    """A table that :func:`read_semantic_ids` reads: a header, the item's token and `code_1 .. code_m`.

    Args:
        path: of the file, separated by tabs.
        item_tokens: of the items, `[n]`.
        codes: int `[n, m]`.
        id_field: the column of the item's token.
    """
    header = [id_field, *(f"code_{level + 1}" for level in range(codes.shape[1]))]
    rows = [[token, *map(str, row)] for token, row in zip(item_tokens, codes.tolist(), strict=True)]
    write_text(path, "".join("\t".join(row) + "\n" for row in [header, *rows]))


def _read_table(path: Path, id_field: str) -> dict[str, list[int]]:
    """Item token -> codes."""
    if not path.is_file():
        raise InputError(
            f"There is no file {path}: set `semantic_ids_file` to a table of {id_field} and one column per level "
            "(a relative path begins in the data set's folder)."
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        tabs = "\t" in header
        # Quotes mean something in comma-separated files only; RecBole's tab-separated tokens are taken as they are.
        quoting = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"delimiter": ","}
        columns = [name.split(":")[0].strip() for name in next(csv.reader([header], **quoting), [])]
        if id_field not in columns or len(columns) < 2:
            raise InputError(
                f"`semantic_ids_file` {path} must have the column {id_field} and one column per level: "
                f"it has {', '.join(columns) or 'none'}."
            )
        id_column = columns.index(id_field)
        table: dict[str, list[int]] = {}
        for number, row in enumerate(csv.reader(file, **quoting), start=2):
            if not row:
                continue
            token = row[id_column] if len(row) == len(columns) else ""
            cells = row[:id_column] + row[id_column + 1 :]
            if not token or not all(cell.strip().isdecimal() for cell in cells):
                raise InputError(
                    f"Line {number} of `semantic_ids_file` {path} must hold an item and {len(columns) - 1} "
                    "whole numbers of at least 0."
                )
            codes = [int(cell) for cell in cells]
            if table.setdefault(token, codes) != codes:
                raise InputError(
                    f"`semantic_ids_file` {path} gives item {token} two IDs (line {number}): keep one of them."
                )
    return table


def _log(report: dict) -> None:
    collisions = report["collisions_before"]
    logging.getLogger().info(
        "Semantic IDs (%s, %s): %d items; perplexity per level %s; "
        "%.2f%% collisions before (largest group %d), %d items moved",
        report["method"],
        report["unique"],
        report["items"],
        ", ".join(f"{level['perplexity']:.0f}/{level['codebook_size']}" for level in report["levels"]),
        100 * collisions["rate"],
        collisions["largest_group"],
        report["items_moved"],
    )
