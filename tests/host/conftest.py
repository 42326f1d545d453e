"""Options of runs that take seconds."""

import pytest

SMALL = [
    "--dataset=tiny", "--text_fields=[movie_title]", "--codebook_size=32", "--codebook_levels=3", "--hidden_size=16",
    "--inner_size=32", "--n_heads=2", "--head_size=8", "--encoder_layers=1", "--decoder_layers=1", "--beam_size=10",
    "--similar_items=5", "--reasoning_steps=2", "--epochs=1", "--pretrain_epochs=1", "--finetune_epochs=1",
    "--reinforce_epochs=1", "--reinforce_samples=64", "--reinforce_batch_size=32", "--group_size=4",
    "--matching_epochs=1", "--candidates=10", "--pointer_size=0", "--show_progress=False", "--use_gpu=False",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def small(tiny_ml100k: str, cache: str) -> list[str]:
    return [*SMALL, f"--data_path={tiny_ml100k}", f"--cache_dir={cache}"]


@pytest.fixture(scope="module")
def module_small(module_tiny_ml100k: str, cache: str) -> list[str]:
    """The same for all tests of a module."""
    return [*SMALL, f"--data_path={module_tiny_ml100k}", f"--cache_dir={cache}"]
