"""What ``precision: auto`` means on which machine."""

from pathlib import Path

import pytest
import torch

from recbole_stream.precision import automatic_precision, fast_bfloat16


@pytest.mark.parametrize(("capability", "fast"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_before_ampere_train_in_float32(monkeypatch, capability, fast):
    # V100, T4, A100, H100; torch itself says of a T4 that it supports bfloat16, which it emulates
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_bfloat16("cuda:0") == fast


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        (
            "flags : fpu avx2 avx512f avx512bw avx512dq avx512vl",
            "float32",
        ),  # vectors of 512 bits alone do not multiply it
        ("flags : fpu avx512f avx512_bf16", "bfloat16"),
        ("flags : fpu amx_bf16 amx_tile", "bfloat16"),
        ("Features : fp asimd sve bf16", "bfloat16"),
    ],
)
def test_cpus_train_in_bfloat16_where_they_have_instructions_for_it(monkeypatch, flags, precision):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    assert automatic_precision("cpu") == precision
