"""The benchmark for GPUs runs everywhere, and says where there is none."""

import gpu
import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_cuda_device_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert gpu.main() == 0
    assert capsys.readouterr().out == "no CUDA device\n"
