"""Both trust roots say the same of honest runs, and neither is passed by a forged one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.layers import BY_LAYER
from zkml_ray import prove_distributed, verify
from zkml_ray.chunking.load import load_model
from zkml_ray.circuits.sealing import seal
from zkml_ray.config import cache_dir
from zkml_ray.stages.plan import plan
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.local import LocalStore
from zkml_ray.verifying.bundle import open_run, write_bundle
from zkml_ray.verifying.trust import TrustRoot
from zkml_ray.verifying.verifier import verify_run

from .models import KINDS, seeded
from .tally import TALLY

pytestmark = pytest.mark.ray

CASES = [
    pytest.param(
        KINDS[seed % len(KINDS)],
        seed,
        id=f"{KINDS[seed % len(KINDS)]}-{seed}",
        marks=[] if seed in (1, 2) else [pytest.mark.slow],
    )
    for seed in range(20)
]


def with_one_weight_changed(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = changed.graph.initializer[-1]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += np.float32(1 / 1024)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return changed


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_trust_roots_agree_and_a_forged_bundle_passes_neither(
    kind: str,
    seed: int,
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = seeded(kind, seed)
    honest_file, forged_file = tmp_path / "honest.onnx", tmp_path / "forged.onnx"
    onnx.save(model, honest_file)
    onnx.save(with_one_weight_changed(model), forged_file)
    store, by_layer = tmp_path / "store", BY_LAYER
    honest, forged = (
        prove_distributed(
            path, workers=2, store=store, run_id=path.stem, seed=seed, options=by_layer
        )
        for path in (honest_file, forged_file)
    )

    # The verifier has a machine of its own: no key that the prover made is in its cache.
    shutil.copytree(cache_dir() / "srs", tmp_path / "verifier" / "srs")
    monkeypatch.setenv("ZKML_RAY_CACHE", str(tmp_path / "verifier"))
    published = seal(plan(load_model(honest_file), by_layer)).digest()
    by_model = verify("honest", store=store, model=honest_file, allow_insecure_srs=True)
    by_digest = verify("honest", store=store, plan_digest=published, allow_insecure_srs=True)
    assert by_model.plan_digest == published == honest.plan_digest
    assert (by_model.statement, by_model.revealed) == (by_digest.statement, by_digest.revealed)
    np.testing.assert_allclose(by_digest.revealed["y"], honest.outputs["y"].ravel())

    bundle = tmp_path / "forged.zip"
    write_bundle(LocalStore(store), RunLayout("default", "forged"), bundle, whole_srs=True)
    opened, layout = open_run(str(bundle))
    own = TrustRoot(plan_digest=forged.plan_digest)
    assert verify_run(opened, layout, own, allow_insecure_srs=True).ok
    for trust, code in (
        (TrustRoot(model=load_model(honest_file)), "model-digest"),
        (TrustRoot(plan_digest=honest.plan_digest), "plan-digest"),
    ):
        TALLY.refused_with(
            lambda trust=trust: verify_run(opened, layout, trust, allow_insecure_srs=True),
            code,
            case=f"forged {kind} {seed}",
        )
