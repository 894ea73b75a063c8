"""Distributed zero-knowledge proving of ONNX models.

The public names load what they need when first used, so that importing the verifier does not
import Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zkml_ray.api import Run, prove_distributed, resume
    from zkml_ray.prover import BatchError, Prover, prove_many
    from zkml_ray.stages.plan import PlanOptions
    from zkml_ray.stages.samples import SampleInputs
    from zkml_ray.verification import verify
    from zkml_ray.verifying.policy import VerifierPolicy

__version__ = "0.1.0"
__all__ = [
    "BatchError",
    "PlanOptions",
    "Prover",
    "Run",
    "SampleInputs",
    "VerifierPolicy",
    "__version__",
    "prove_distributed",
    "prove_many",
    "resume",
    "verify",
]

_HOMES = {
    "BatchError": "zkml_ray.prover",
    "Prover": "zkml_ray.prover",
    "PlanOptions": "zkml_ray.stages.plan",
    "Run": "zkml_ray.api",
    "SampleInputs": "zkml_ray.stages.samples",
    "VerifierPolicy": "zkml_ray.verifying.policy",
    "prove_distributed": "zkml_ray.api",
    "prove_many": "zkml_ray.prover",
    "resume": "zkml_ray.api",
    "verify": "zkml_ray.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zkml_ray' has no attribute {name!r}")
    from importlib import import_module

    from zkml_ray.extras import named_if_missing

    with named_if_missing():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
