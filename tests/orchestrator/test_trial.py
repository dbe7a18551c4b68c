"""A trial tells how its job went, keeps its worker where it can, and ends it where it must."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
import warnings

import pytest
import torch

from orchestrator.engine.trial import RetiredError, Trial
from orchestrator.jobs.job import JobContext
from orchestrator.store import StoreError
from orchestrator.store.fingerprints import OtherImagesError
from signsym_core.backbones.weights import WeightsError
from signsym_core.datasets import DataWarning
from signsym_core.datasets.decode import BrokenImageError
from signsym_core.datasets.files import BrokenImagesError
from signsym_core.datasets.splits import DataNotFoundError
from signsym_core.models.outputs import NonFiniteOutputError
from signsym_core.training.health import NonFiniteGradientError, NonFiniteLossError, NonFiniteWeightsError

CONTEXT = JobContext(storage="/not/there", data_root="", git="", versions="")
CONFIG = {"key": "k", "title": "k", "spec": {}, "results": "results/k.parquet", "cpu": 1, "gpu": 0.0}
CONFIG |= {"halvings": 0, "minutes": 5}


def trial(execute, **config):
    made = Trial.__new__(Trial)
    made.setup(CONFIG | config, execute=execute, context=CONTEXT)
    return made


def test_a_job_that_raises_is_reported_and_leaves_the_worker_alive():
    def fail(key, spec, context):
        raise ValueError("no such thing")

    made = trial(fail)
    told = made.step()
    assert told["error"] == "ValueError: no such thing"
    assert told["cause"] == "error"
    assert told["done"]
    assert "fail" in told["traceback"]
    assert made.reset_config(CONFIG | {"key": "next"})
    assert made.job["key"] == "next"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("full"), "memory"),
        (torch.AcceleratorError("CUDA error: out of memory"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "memory"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "error"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), "error"),
        (StoreError("full"), "store"),
        *((kind("no"), "lasting") for kind in (DataNotFoundError, BrokenImageError, BrokenImagesError)),
        *((kind("no"), "lasting") for kind in (OtherImagesError, WeightsError, NonFiniteOutputError)),
        *((kind("no"), "lasting") for kind in (NonFiniteGradientError, NonFiniteLossError, NonFiniteWeightsError)),
        (FileNotFoundError("a file of the store's that another sweep has merged"), "error"),
        (FloatingPointError("of another library"), "error"),
        (OSError(), "error"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "disk"),
        (RuntimeError("unable to write to file </torch_1>: No space left on device (28)"), "disk"),
        (SystemExit(3), "error"),
    ],
)
def test_causes_are_told_apart(error, cause):
    def fail(key, spec, context):
        raise error

    assert trial(fail).step()["cause"] == cause


def test_what_another_sweep_has_done_meanwhile_is_not_done_again(tmp_path):
    calls = []
    context = dataclasses.replace(CONTEXT, storage=str(tmp_path))
    made = Trial.__new__(Trial)
    made.setup(CONFIG, execute=lambda *given: calls.append(given), context=context)
    assert made.step()["done"]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/k.parquet").write_bytes(b"")
    assert "error" not in made.step()
    assert len(calls) == 1


def test_a_job_past_its_limit_is_reported_with_the_place_where_it_hangs():
    def hang(key, spec, context):
        time.sleep(60)

    made = trial(hang, minutes=0.005)
    told = made.step()
    assert told["cause"] == "time"
    assert "longer than its limit of 0.005 minutes" in told["error"]
    assert "in hang" in told["traceback"]
    # Not done: Tune asks once more, and the worker's end is then an error, after which it is not used again.
    assert not told["done"]
    with pytest.raises(RetiredError):
        made.step()


def test_an_error_of_the_device_ends_the_worker():
    def fail(key, spec, context):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    made = trial(fail)
    assert not made.step()["done"]
    with pytest.raises(RetiredError):
        made.step()


def test_the_job_gets_its_halvings_its_share_and_its_threads_and_no_gpu_that_it_was_not_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    seen = {}

    def look(key, spec, context):
        seen.update(halvings=context.halvings, share=context.gpu_share, threads=torch.get_num_threads())
        return {"top1": 0.5}

    told = trial(look, halvings=3, cpu=2).step()
    assert seen == {"halvings": 3, "share": 0.0, "threads": 2}
    assert told["top1"] == 0.5
    assert told["seconds"] >= 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_what_a_data_set_warns_of_is_told_and_other_warnings_are_not():
    def warn(key, spec, context):
        warnings.warn("the cache was mended", DataWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
        return {"loss": 1.0}

    made = trial(warn)
    with pytest.warns(UserWarning, match="something else"):
        told = made._run()
    assert told["said"] == ["the cache was mended"]
    assert told["loss"] == 1.0
    assert trial(lambda *_: None).step()["said"] == []
