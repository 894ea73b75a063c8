"""Verifying ends within the seconds and the memory that it is allowed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.command import Outcome, run_here
from tests.layers import BY_LAYER
from zkml_ray import SampleInputs, VerifierPolicy, verify
from zkml_ray.errors import (
    ConfigError,
    LimitExceededError,
    StoreError,
    TrustRootError,
    VerificationError,
)
from zkml_ray.verifying import limited
from zkml_ray.verifying.verdict import Verdict

from .attacker import MemoryStore
from .here import prove_here


@pytest.fixture(scope="module")
def run_store(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the perceptron's run."""
    store: Path = tmp_path_factory.mktemp("store")
    prove_here(models / "mlp.onnx", store=store, run_id="mlp", options=BY_LAYER)
    return store


def said(verdict: Verdict) -> dict[str, Any]:
    """A verdict without what no two of them share."""
    document = verdict.as_json()
    document["steps"] = [step["name"] for step in document["steps"]]
    return document


def test_verdict_within_limits_is_the_verdict_without(models: Path, run_store: Path) -> None:
    where: dict[str, Any] = {
        "store": run_store,
        "model": models / "mlp.onnx",
        "allow_insecure_srs": True,
        "policy": VerifierPolicy(min_scale=8),
    }
    free = verify("mlp", **where)
    held = verify("mlp", max_seconds=120, max_memory_bytes=2 << 30, **where)
    assert said(held) == said(free)
    assert Verdict.of_json(json.loads(json.dumps(free.as_json()))) == free


def test_refusals_within_limits_are_the_refusals_without(models: Path, run_store: Path) -> None:
    """A policy that refuses, another model, an insecure SRS: class, code and message are kept."""
    cases: list[dict[str, Any]] = [
        {"model": models / "mlp.onnx", "policy": VerifierPolicy(min_scale=9)},
        {"model": models / "residual.onnx"},
        {"model": models / "mlp.onnx", "allow_insecure_srs": False},
        {"plan_digest": "0" * 64},
    ]
    for case in cases:
        call = {"store": run_store, "allow_insecure_srs": True, **case}
        caught = []
        for limits in ({}, {"max_seconds": 120.0}):
            with pytest.raises(VerificationError) as refused:
                verify("mlp", **call, **limits)
            caught.append(refused.value)
        assert [type(error) for error in caught] == [type(caught[0])] * 2
        assert caught[0].__dict__ == caught[1].__dict__
    assert isinstance(caught[0], TrustRootError)


def test_verification_beyond_the_limit_of_seconds_is_ended(models: Path, run_store: Path) -> None:
    started = time.monotonic()
    with pytest.raises(LimitExceededError, match="--max-seconds") as refused:
        verify(
            "mlp",
            store=run_store,
            model=models / "mlp.onnx",
            allow_insecure_srs=True,
            max_seconds=0.3,
        )
    assert refused.value.code == "limit-seconds"
    assert time.monotonic() - started < 30
    assert not children()


def test_verification_beyond_the_limit_of_memory_is_refused_by_the_kernel(
    models: Path, run_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of so little memory Python itself runs out, or ezkl, or the threads of either."""
    monkeypatch.setattr(limited, "MIN_MEMORY_BYTES", 1 << 20)
    for max_memory_bytes in (16 << 20, 64 << 20, 120 << 20):
        with pytest.raises(LimitExceededError) as refused:
            verify(
                "mlp",
                store=run_store,
                model=models / "mlp.onnx",
                allow_insecure_srs=True,
                max_memory_bytes=max_memory_bytes,
                max_seconds=60,
            )
        # An interpreter that has no memory to raise an error with may spin instead, at some sizes
        # below what a user can ask for: the limit of seconds ends it.
        spins = max_memory_bytes < 64 << 20
        codes = ("limit-memory", "limit-seconds") if spins else ("limit-memory",)
        assert refused.value.code in codes, max_memory_bytes


def children() -> list[str]:
    """Command lines of this process's descendants that verify."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            continue
        if "zkml_ray.verifying.limited_child" in words and parent == str(os.getpid()):
            found.append(" ".join(words))
    return found


def test_wrong_calls_within_limits_are_those_without(tmp_path: Path, models: Path) -> None:
    digest = "0" * 64
    for call, kind, what in (
        ({}, ConfigError, "no run nowhere"),
        ({"plan_digest": None}, ConfigError, "exactly one trust root"),
        ({"model": tmp_path / "none.onnx", "plan_digest": None}, ConfigError, "no such model"),
        ({"store": "s3://"}, ConfigError, "s3"),
        ({"max_seconds": 0.0}, ConfigError, "--max-seconds"),
        ({"max_seconds": float("inf")}, ConfigError, "--max-seconds"),
        ({"max_memory_bytes": 1 << 20}, ConfigError, "--max-memory"),
        ({"store": MemoryStore({})}, (ConfigError, StoreError), "memory"),
        ({"measure": lambda *_: None}, ConfigError, "SampleInputs"),
    ):
        arguments: dict[str, Any] = {"store": tmp_path, "plan_digest": digest, "max_seconds": 60.0}
        with pytest.raises(kind, match=what):
            verify("nowhere", **{**arguments, **call})


def test_sample_inputs_can_be_named_to_another_process(tmp_path: Path) -> None:
    file = tmp_path / "a b.npy"
    file.write_bytes(b"")
    assert SampleInputs([file], min_agreement=0.1, max_error=1e-3).arguments() == [
        f"--sample-inputs={file}",
        "--min-agreement=0.1",
        "--max-sample-error=0.001",
    ]
    assert SampleInputs([str(file)]).arguments() == [f"--sample-inputs={file}"]


def test_command_takes_the_demands_and_says_them(
    models: Path, run_store: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.full((3, 1, 8), 0.25, dtype=np.float32))
    call = ["verify", "mlp", "--store", str(run_store)]
    call += ["--model", str(models / "mlp.onnx"), "--allow-insecure-srs"]

    def run(*more: str) -> Outcome:
        return run_here(*call, *more)

    found = run("--sample-inputs", str(tmp_path / "x.npy"), "--max-seconds", "120", "--json")
    assert found.code == 0, found.errors
    assert found.json["measured"]["samples"] == 3
    assert found.json["policy"] == VerifierPolicy().as_json()
    assert found.json["plan_chosen_by"] == "prover"
    said = run("--sample-inputs", str(tmp_path / "x.npy"))
    assert "The prover chose the plan; floors: " in said.stdout
    assert "Measured on 3 sample inputs against onnxruntime " in said.stdout
    for more, code in (
        (["--min-scale", "9"], "plan-precision"),
        (["--min-weight-bits", "20"], "plan-precision"),
        (["--sample-inputs", str(tmp_path / "x.npy"), "--max-sample-error", "1e-9"], "accuracy"),
        (["--max-seconds", "0.2"], "limit-seconds"),
    ):
        refused = run(*more, "--json")
        assert (refused.code, refused.json["code"]) == (1, code)
    for more, what in (
        (["--min-agreement", "0.9"], "--sample-inputs"),
        (["--min-scale", "0"], "--min-scale"),
        (["--max-memory", "much"], "--max-memory"),
    ):
        wrong = run(*more)
        assert wrong.code == 2 and what in wrong.errors[-1]
