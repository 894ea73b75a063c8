"""Shared fixtures: one cache of keys and SRS files for all tests, one Ray, one run of each model.

The cache lies in the repository's ignored .cache folder, so that a second run of the suite finds
its keys. Everything in it is addressed by content or re-hashed on read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from hypothesis import settings

# CI tries the same examples every time; elsewhere every run tries new ones.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

REPOSITORY = Path(__file__).resolve().parent.parent
os.environ["ZKML_RAY_CACHE"] = str(REPOSITORY / ".cache" / "test")
os.environ.pop("ZKML_RAY_SRS_DIR", None)
os.environ.pop("ZKML_RAY_STORE", None)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from tests import zoo  # noqa: E402
from tests.layers import BY_LAYER  # noqa: E402
from zkml_ray import prove_distributed  # noqa: E402
from zkml_ray.api import Run  # noqa: E402
from zkml_ray.cluster.session import ray_session  # noqa: E402
from zkml_ray.errors import InsecureSrsWarning  # noqa: E402


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def digits() -> Path:
    return REPOSITORY / "examples" / "digits"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the zoo's ONNX files: mlp.onnx, residual.onnx, ..."""
    folder = tmp_path_factory.mktemp("models")
    for name, build in zoo.MODELS.items():
        onnx.save(build(), folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    with ray_session(cpus=4):
        yield


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the shared runs. Tests that change it work on a copy."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def mlp_run(ray_cluster: None, models: Path, shared_store: Path) -> Run:
    """A small perceptron's run, 3 chunks, input and output revealed."""
    with pytest.warns(InsecureSrsWarning, match="can forge proofs"):
        return prove_distributed(
            models / "mlp.onnx",
            workers=2,
            store=shared_store,
            project="shared",
            run_id="mlp",
            options=BY_LAYER,
        )


@pytest.fixture(scope="session")
def residual_run(ray_cluster: None, models: Path, shared_store: Path) -> Run:
    """A run whose model has a residual connection that crosses cuts."""
    return prove_distributed(
        models / "residual.onnx",
        workers=2,
        store=shared_store,
        project="shared",
        run_id="residual",
        options=BY_LAYER,
    )


@pytest.fixture(scope="session")
def digits_run(ray_cluster: None, digits: Path, shared_store: Path) -> Run:
    """A real digit on two workers."""
    return prove_distributed(
        digits / "digits.onnx",
        workers=2,
        inputs=digits / "seven.json",
        store=shared_store,
        project="shared",
        run_id="digits",
        options=BY_LAYER,
    )
