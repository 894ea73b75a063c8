"""A verifier's own measurement: the plan's quantised model beside his float model, on his data.

Floors bound how coarse a plan's arithmetic is; how far its answers are from the model's depends on
the model. Whoever verifies with the model and has inputs at hand runs both: the circuits that he
has just derived from the model, computed as the witness stage computes them, and the model's file
as it is, by onnxruntime. What is found is what an honest prover's rounding gives (docs/security.md
says by how much another's may differ).

This is a stage, which verifiers do not import: the command line and `zkml_ray.SampleInputs` hand it
to `verify`, and it needs onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.load import LoadedModel
from zkml_ray.circuits.derive import DerivedCircuits, rederived_graph
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.errors import ConfigError, InputError, RangeExceededError, VerificationError
from zkml_ray.extras import named_if_missing
from zkml_ray.stages.accuracy import (
    Reals,
    class_vector,
    quantised_boundaries,
    read_samples,
    real_values,
)
from zkml_ray.stages.inputs import DEFAULT_SEED, Arrays
from zkml_ray.stages.reference import reference_outputs
from zkml_ray.verifying.verdict import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInputs:
    """Inputs that a verifier measures a plan with; `verify` takes it as `measure`.

    Attributes:
        files: .json, .npy or .npz as `prove` takes them; the latter two may hold several inputs
            along an additional first axis.
        min_agreement: Least share of inputs on which the largest output must be the float
            model's; None: any is reported.
        max_error: Largest absolute error of an output that is accepted; None: any is reported.
    """

    files: tuple[Path, ...]
    min_agreement: float | None = None
    max_error: float | None = None

    def __init__(
        self,
        files: Iterable[str | Path],
        *,
        min_agreement: float | None = None,
        max_error: float | None = None,
    ) -> None:
        """Name the inputs.

        Raises:
            ConfigError: There is no such file or none at all, a demand cannot be met by any plan,
                or onnxruntime is not installed.
        """
        with named_if_missing():
            import onnxruntime  # noqa: F401  (said now, not after minutes of verifying)
        object.__setattr__(self, "files", tuple(Path(file) for file in files))
        object.__setattr__(self, "min_agreement", min_agreement)
        object.__setattr__(self, "max_error", max_error)
        if not self.files:
            raise ConfigError("no sample inputs were named: give at least one file")
        for file in self.files:
            if not file.is_file():
                raise ConfigError(f"no such file of sample inputs: {file}")
        if min_agreement is not None and not 0 < min_agreement <= 1:
            raise ConfigError(
                f"--min-agreement is a share above 0 and up to 1, not {min_agreement:g}"
            )
        if max_error is not None and not max_error > 0:
            raise ConfigError(f"--max-sample-error must be above 0, not {max_error:g}")

    def __call__(self, model: LoadedModel, circuits: DerivedCircuits) -> Measured:
        """Measure a plan.

        Args:
            model: The verifier's own copy.
            circuits: The plan and its circuits, derived from it.

        Raises:
            InputError: A file holds no input of the model.
            VerificationError: Code "accuracy": the plan does not meet what was demanded.
        """
        found = self._measured(model, circuits)
        self._demand(found)
        return found

    def arguments(self) -> list[str]:
        """The same as options of the command `verify`."""
        given = [f"--sample-inputs={file}" for file in self.files]
        if self.min_agreement is not None:
            given.append(f"--min-agreement={self.min_agreement!r}")
        if self.max_error is not None:
            given.append(f"--max-sample-error={self.max_error!r}")
        return given

    def _measured(self, model: LoadedModel, circuits: DerivedCircuits) -> Measured:
        plan = circuits.plan
        graph = rederived_graph(model, plan)
        samples = read_samples(graph, self.files, seed=DEFAULT_SEED)
        if not samples:
            raise InputError(f"{self.files[0].name} holds no input")
        exact, source = _reference(model, graph, samples, plan.model_outputs)
        cache = KeyCache()
        compiled = {
            chunk_id: cache.circuit(files.onnx, files.settings)
            for chunk_id, files in circuits.files.items()
        }
        vector = class_vector(plan)
        errors: list[Reals] = []
        agreed = refused = 0
        for arrays, wanted in zip(samples, exact, strict=True):
            try:
                quantised = quantised_boundaries(plan, compiled.__getitem__, arrays)
            except (RangeExceededError, InputError):
                refused += 1  # no proof of this input is possible
                continue
            for name, reals in zip(plan.model_outputs, wanted, strict=True):
                got = real_values(plan.boundary(name), quantised[name])
                errors.append(np.abs(got - reals.reshape(got.shape)).ravel())
                if name == vector:
                    agreed += int(np.argmax(got)) == int(np.argmax(reals))
        proved = len(samples) - refused
        flat = np.concatenate(errors) if errors else None
        return Measured(
            samples=len(samples),
            reference=source,
            out_of_range=refused,
            max_abs_error=None if flat is None else float(flat.max()),
            mean_abs_error=None if flat is None else float(flat.mean()),
            top1_agreement=None if vector is None or not proved else agreed / proved,
        )

    def _demand(self, found: Measured) -> None:
        if self.min_agreement is not None:
            if found.top1_agreement is None:
                raise _inaccurate(
                    "no agreement could be measured: "
                    + (
                        "no input is within the plan's range"
                        if found.samples == found.out_of_range
                        else "the model does not give one vector of scores"
                    ),
                    f"{self.min_agreement:.2%}",
                    "none",
                )
            if found.top1_agreement < self.min_agreement:
                raise _inaccurate(
                    f"the largest output is the float model's on {found.top1_agreement:.2%} of "
                    f"{found.samples - found.out_of_range} sample inputs; at least "
                    f"{self.min_agreement:.2%} are demanded (--min-agreement)",
                    f"{self.min_agreement:.2%}",
                    f"{found.top1_agreement:.2%}",
                )
        if self.max_error is not None and (
            found.max_abs_error is None or found.max_abs_error > self.max_error
        ):
            got = "nothing" if found.max_abs_error is None else f"{found.max_abs_error:.3g}"
            raise _inaccurate(
                f"an output is off by {got} on the sample inputs; at most {self.max_error:g} is "
                "accepted (--max-sample-error)",
                f"at most {self.max_error:g}",
                got,
            )


def _reference(
    model: LoadedModel, graph: ModelGraph, samples: Sequence[Arrays], outputs: Sequence[str]
) -> tuple[list[list[Reals]], str]:
    """Per sample, the outputs of the verifier's own file in float32; and what was run for them.

    Raises:
        ConfigError: onnxruntime does not run the model.
    """
    exact = []
    for arrays in samples:
        reference = reference_outputs(model, graph, arrays)
        if missing := [name for name in outputs if name not in reference.values]:
            raise ConfigError(
                f"{model.name} cannot be measured: onnxruntime gives no {', '.join(missing)}"
                + (f" ({reference.note})" if reference.note else "")
            )
        exact.append([reference.values[name].astype(np.float64) for name in outputs])
    return exact, reference.source


def _inaccurate(problem: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        f"the plan is not as accurate as was demanded: {problem}",
        expected=expected,
        got=got,
        code="accuracy",
    )
