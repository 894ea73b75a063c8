"""Runs to report on: one of hostile names, one that failed, one of very many chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.soundness.here import prove_here
from zkml_ray import PlanOptions, names
from zkml_ray.api import advance, prepare
from zkml_ray.errors import ZkmlRayError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.manifest import BoundaryCommitment, Manifest, Span
from zkml_ray.schema.plan import SealedPlan, VerifyingKeyPin
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x onerror=alert(2)>',
    "a' onload='alert(3)' b{{ 7*7 }}{% raw %}",
    "]]></style></svg><svg/onload=alert(4)>&lt;",
)
"""Names of a model's tensors, its input's and output's among them."""

SMALL = PlanOptions(scale=8, layers_per_chunk=1)


def hostile_model(folder: Path) -> Path:
    """Three dense layers whose tensors have hostile names, in a file that has one too."""
    generator = np.random.default_rng(3)
    first, second, third, last = HOSTILE
    nodes, weights = [], []
    for index, (source, target) in enumerate(((first, second), (second, third), (third, last))):
        values = generator.normal(size=(4, 4)).astype(np.float32) / 2
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [source, f"w{index}"], [target], f"<b>{index}"))
    graph = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info(first, TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "<img src=x onerror=alert(5)>.onnx"
    onnx.save(model, path)
    return path


def hostile_run(folder: Path) -> tuple[Path, str]:
    """A real proved run of it: store and id."""
    store = folder / "hostile-store"
    prove_here(hostile_model(folder), store=store, run_id="hostile", options=SMALL)
    return store, "hostile"


def failed_run(model: Path, folder: Path) -> tuple[Path, str]:
    """A run that failed at its witness, of a value out of range: store and id."""
    store = folder / "failed-store"
    width = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    options = PlanOptions(scale=8, layers_per_chunk=1, circuits="native")
    prepare(model, [12345678.0] * width, store=store, run_id="failed", options=options)
    try:
        advance("failed", "witness", store=store)
    except ZkmlRayError as error:
        assert "1.23457e+07" in str(error), "what the user is told holds the value"
        return store, "failed"
    raise AssertionError("the run did not fail")


def large_run(
    store: Path, project: str, run_id: str, chunks: int, folder: Path
) -> tuple[Path, str]:
    """A run of very many chunks, told by documents alone, for it was never proved.

    Every chunk is a copy of a real run's second; the statement is the real one's.
    """
    source, layout = open_store(str(store)), RunLayout(project, run_id)
    manifest = Manifest.parse(source.get(layout.manifest, max_bytes=1 << 26), what="manifest")
    sealed = SealedPlan.parse(
        source.read_verified(manifest.artifacts[names.SEALED_PLAN]), what="sealed plan"
    )
    plan = sealed.plan
    (first,), (last,) = plan.model_inputs, plan.model_outputs
    ids = [f"chunk-{index:03d}" for index in range(chunks)]
    tensors = [first, *(f"hidden {index}" for index in range(1, chunks)), last]
    like, record = plan.chunks[1], manifest.chunks[1]
    inner = plan.boundary(like.outputs[0])
    boundaries = []
    for index, name in enumerate(tensors):
        base = plan.boundary(name) if name in (first, last) else inner
        update = {
            "name": name,
            "producer": ids[index - 1] if index else None,
            "consumers": (ids[index],) if index < chunks else (),
        }
        boundaries.append(base.model_copy(update=update))
    many = plan.model_copy(
        update={
            "chunks": tuple(
                like.model_copy(
                    update={"id": id_, "inputs": (tensors[i],), "outputs": (tensors[i + 1],)}
                )
                for i, id_ in enumerate(ids)
            ),
            "boundaries": tuple(boundaries),
        }
    )
    begun = record.setup.started_s
    records = []
    for index, id_ in enumerate(ids):
        at = begun + 3.0 * (index // 4) + 0.1 * (index % 4)
        spans = {
            "setup": Span(started_s=at, ended_s=at + 0.8),
            "witness": Span(started_s=at + 0.8, ended_s=at + 0.85),
            "prove": Span(started_s=at + 0.85, ended_s=at + 2.5 + 0.001 * (index % 300)),
        }
        records.append(
            record.model_copy(update={"chunk": id_, "worker": f"worker-{index % 4}", **spans})
        )
    sealed = sealed.model_copy(
        update={
            "plan": many,
            "verifying_keys": tuple(VerifyingKeyPin(chunk=id_, sha256="0" * 64) for id_ in ids),
        }
    )
    target = open_store(str(folder / "large-store"))
    place = RunLayout("default", "large")
    digest = sealed.digest()
    key = place.artifact_key("plans", digest)
    target.put(key, sealed.to_bytes())
    artifacts: dict[str, ArtifactRef] = {
        names.SEALED_PLAN: ArtifactRef(key=key, sha256=digest, size_bytes=len(sealed.to_bytes()))
    }
    roots = {entry.boundary: entry.commitment for entry in manifest.boundaries}
    document = manifest.model_copy(
        update={
            "project": "default",
            "run_id": "large",
            "plan_sha256": digest,
            "statement": manifest.statement.model_copy(update={"plan_sha256": digest}),
            "boundaries": tuple(
                BoundaryCommitment(boundary=name, commitment=roots.get(name, roots[first]))
                for name in tensors
            ),
            "artifacts": artifacts,
            "chunks": tuple(records),
        }
    )
    target.put(place.manifest, document.to_bytes())
    return folder / "large-store", "large"
