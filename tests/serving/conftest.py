"""The kinds of models that a folder may hold."""

import pytest


@pytest.fixture(params=["TIGER", "likelihood", "states", "deliberation", "verifier", "pointer"])
def any_kind(request) -> str:
    return request.param
