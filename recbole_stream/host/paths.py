"""Where the YAML files of models and data sets lie."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["lineage", "model_files", "properties_dir"]


def properties_dir() -> Path:
    """The folder of our YAML files, which lies beside the package in a checkout and inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "properties"
    return inside if inside.is_dir() else package.parent / "properties"


def lineage(model: str) -> list[type]:
    """A model's classes, those it derives from first; empty for a name that means no model."""
    from recbole.utils import get_model

    try:
        return get_model(model).__mro__[::-1]
    except (ValueError, AttributeError, ImportError):
        return []


def model_files(model: str) -> list[Path]:
    """The YAML files of a model's keys, those of the models it derives from first.

    They lie in RecBole's folder or ours, and those of a plugin's model beside its file.
    """
    import recbole

    files = []
    for base in lineage(model):
        code = getattr(sys.modules.get(base.__module__), "__file__", None)
        folders = [Path(recbole.__file__).parent / "properties" / "model", properties_dir() / "model"]
        folders += [Path(code).parent] if code else []
        files += [folder / f"{base.__name__}.yaml" for folder in folders]
    return [file for file in files if file.is_file()]
