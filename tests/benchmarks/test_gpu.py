"""The benchmark for GPUs runs everywhere, and says where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_cuda_device_that_is_said():
    ended = subprocess.run([sys.executable, GPU], capture_output=True, text=True, check=True)
    assert ended.stdout == "no CUDA device\n"
