"""Where bfloat16 is fast: the meaning of ``precision: auto``."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["automatic_precision", "fast_bfloat16"]

# NVIDIA GPUs multiply bfloat16 from this compute capability on (Ampere); before it PyTorch emulates the type
_CUDA = (8, 0)
# flags of processors with instructions for it: x86 (AVX-512, AMX) and ARM. On others oneDNN converts to float32 and back
_CPU = {"avx512_bf16", "amx_bf16", "bf16"}


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies in bfloat16 itself; where it only emulates the type, float32 is faster."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _CUDA
    flags = Path("/proc/cpuinfo")
    if device.type != "cpu" or not torch.backends.mkldnn.is_available() or not flags.exists():
        return False
    return not _CPU.isdisjoint(flags.read_text().split())


def automatic_precision(device: torch.device | str) -> str:
    """``precision: auto`` on a device: ``bfloat16`` or ``float32``."""
    return "bfloat16" if fast_bfloat16(device) else "float32"
