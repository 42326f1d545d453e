"""The model card: README.md of a model's folder, in the form that model hubs read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["model_card"]

_TITLES = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR", "hit": "Hit", "precision": "Precision", "map": "MAP"}


def model_card(facts: Mapping[str, Any]) -> str:
    """A card from what a run measured.

    Args:
        facts: ``model``, ``stage``, ``dataset``, ``seed``, ``items``, ``users``, ``test`` and ``valid`` (metric -> value),
            ``protocol`` (one sentence), ``command``, ``date``, ``hardware``, ``encoder`` (or None), ``parameters``.
    """
    name = facts["model"] + (f" ({facts['stage']})" if facts["stage"] else "")
    metrics = [
        {"type": metric, "name": _title(metric), "value": round(value, 4)}
        for metric, value in facts["test"].items()
        if value is not None
    ]
    head = {
        "library_name": "recbole-stream",
        "tags": ["recommendation", "sequential-recommendation", facts["model"]],
        "datasets": [facts["dataset"]],
        "metrics": list(facts["test"]),
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "sequential-recommendation", "name": "Next-item recommendation"},
                        "dataset": {"type": facts["dataset"], "name": facts["dataset"], "split": "test"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    encoder = facts["encoder"] or "none: the items have semantic IDs of their own"
    rows = "\n".join(
        f"| {_title(metric)} | {_number(facts['valid'].get(metric))} | {_number(value)} |"
        for metric, value in facts["test"].items()
    )
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

# {name} on {facts["dataset"]}

It recommends the next item after a history, among {facts["items"]:,} items. It was trained on the events of
{facts["users"]:,} users with seed {facts["seed"]}, and has {facts["parameters"]:,} trainable parameters.

```python
from recbole_stream import Recommender

model = Recommender.load("this folder")
table = model.recommend([["an item", "another item"]], k=10)
```

## Metrics

{facts["protocol"]}

| metric | validation | test |
| --- | --- | --- |
{rows}

## Training

* Text encoder: {encoder}
* Command: `{facts["command"]}`
* Hardware: {facts["hardware"]}
* Date: {facts["date"]}

## Licence

Not set: the owner of the data and of this model names one, here and as `license` in the head of this file.
"""


def _title(metric: str) -> str:
    name, _, cutoff = metric.partition("@")
    return _TITLES.get(name, name) + (f"@{cutoff}" if cutoff else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
