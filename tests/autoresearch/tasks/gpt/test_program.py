import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.tasks.gpt.program import NO_GPU, environment, one_gpu


def test_a_trial_on_one_of_several_gpus_sees_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert one_gpu("cuda:1") == ("cuda", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-ab,6")
    assert one_gpu("cuda:1") == ("cuda", "GPU-ab")
    assert [one_gpu(name) for name in ("cuda", "auto")] == [("cuda", ""), ("auto", "")]
    assert environment(Path("/code"), 1, "GPU-ab")["CUDA_VISIBLE_DEVICES"] == "GPU-ab"
    assert environment(Path("/code"), 1)["CUDA_VISIBLE_DEVICES"] == "4, GPU-ab,6"


@pytest.mark.slow
def test_a_trial_on_the_cpu_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    device, only = one_gpu("cpu")
    assert device == "cpu" and environment(Path("/code"), 1, only)["CUDA_VISIBLE_DEVICES"] == NO_GPU
    seen = "import torch; print(torch.cuda.is_available(), torch.cuda.device_count())"
    child = {**environment(Path("/code"), 1, only), "HOME": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", seen], env=child, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "0"]
