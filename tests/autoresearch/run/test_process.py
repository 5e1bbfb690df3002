from pathlib import Path

import pytest

from autoresearch.run.process import environment, one_gpu


def test_a_trial_on_one_of_several_gpus_sees_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert one_gpu("cuda:1") == ("cuda", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-ab,6")
    assert one_gpu("cuda:1") == ("cuda", "GPU-ab")
    assert [one_gpu(name) for name in ("cpu", "cuda", "auto")] == [("cpu", ""), ("cuda", ""), ("auto", "")]
    assert environment(Path("/code"), 1, "GPU-ab")["CUDA_VISIBLE_DEVICES"] == "GPU-ab"
    assert environment(Path("/code"), 1)["CUDA_VISIBLE_DEVICES"] == "4, GPU-ab,6"
