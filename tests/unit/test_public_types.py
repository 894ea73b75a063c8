"""The public names are completely typed, as a user's own type checker sees them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from mypy import api as mypy

import zkml_ray

NAMES = sorted(set(zkml_ray.__all__) - {"__version__"})

PROGRAM = """
import numpy as np
import zkml_ray

run = zkml_ray.prove_distributed("m.onnx", workers=2, inputs={"x": np.zeros(3)}, run_id="r")
reveal_type(run)
reveal_type(run.outputs)
reveal_type(run.verified)
reveal_type(run.verdict)
reveal_type(zkml_ray.resume("r"))
reveal_type(zkml_ray.verify("r", model="m.onnx", policy=zkml_ray.VerifierPolicy()).ok)
zkml_ray.prove_distributed(b"bytes", workers="two")
zkml_ray.verify("r", modle="m.onnx")
"""


def test_many_inputs_take_the_arguments_of_a_prover() -> None:
    arguments = set(inspect.signature(zkml_ray.Prover.__init__).parameters)
    taken = set(inspect.signature(zkml_ray.prove_many).parameters)
    assert taken == arguments - {"self", "example"} | {"inputs", "run_id"}


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_documented_and_every_parameter_has_a_type(name: str) -> None:
    found = getattr(zkml_ray, name)
    assert inspect.getdoc(found)
    members = [found]
    if inspect.isclass(found):
        members = [
            value
            for key, value in vars(found).items()
            if inspect.isfunction(value) and (key == "__init__" or not key.startswith("_"))
        ]
    for member in members:
        signature = inspect.signature(member)
        assert signature.return_annotation not in (inspect.Signature.empty, "Any"), member
        for parameter in signature.parameters.values():
            if parameter.name != "self":
                assert parameter.annotation not in (inspect.Parameter.empty, "Any"), parameter


def test_users_type_checker_knows_results_and_finds_mistakes(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.chdir(repository)
    text, _, code = mypy.run([str(path), "--no-error-summary"])
    assert code == 1
    revealed = [
        line.partition("Revealed type is ")[2] for line in text.splitlines() if "Revealed" in line
    ]
    expected = (
        '"zkml_ray.api.Run"',
        "Mapping[",
        '"bool"',
        "Verdict",
        '"zkml_ray.api.Run"',
        '"bool"',
    )
    assert len(revealed) == len(expected), text
    for got, wanted in zip(revealed, expected, strict=True):
        assert wanted.strip('"') in got
        assert got.strip('"') != "Any"
    errors = [line for line in text.splitlines() if ": error:" in line]
    assert len(errors) == 2, text
    assert "workers" in errors[0] and "modle" in errors[1]
