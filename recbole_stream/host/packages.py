"""Which packages are installed, asked without importing them."""

from __future__ import annotations

import importlib.util

__all__ = ["ray_is_installed"]


def ray_is_installed() -> bool:
    """Whether there is a package of that name, and not just a folder such as the ``/tmp/ray`` that Ray leaves behind."""
    spec = importlib.util.find_spec("ray")
    return spec is not None and spec.origin is not None
