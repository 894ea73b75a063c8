"""What result files keep of plans, forecasts and manifests."""

from __future__ import annotations

from typing import Any

from zkml_ray import names
from zkml_ray.schema.forecast import Forecast
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import Plan
from zkml_ray.stores import open_store
from zkml_ray.stores.layout import RunLayout


def circuits_of(plan: Plan) -> dict[str, Any]:
    """What a benchmark keeps of a plan: per chunk, the kind of its circuit and its size."""
    arguments = [chunk.arguments for chunk in plan.chunks]
    return {
        "kinds": [one.kind for one in arguments],
        "range_bits": sorted({one.range_bits for one in arguments if one.kind == "hinted"}),
        "logrows": [one.logrows for one in arguments],
        "columns": [one.num_inner_cols for one in arguments],
        "rows": [chunk.num_rows for chunk in plan.chunks],
        "operators": [" ".join(chunk.operators) for chunk in plan.chunks],
    }


def stored_plan(store: str, run_id: str) -> Plan:
    """A run's plan, from its store."""
    return Plan.model_validate_json(_stored(store, run_id, names.PLAN))


def stored_forecast(store: str, run_id: str) -> Forecast:
    """What a run's plan was expected to cost, as its coordinator stored it."""
    return Forecast.model_validate_json(_stored(store, run_id, names.FORECAST))


def _stored(store: str, run_id: str, name: str) -> bytes:
    key = RunLayout("default", run_id).run_key(name)
    return open_store(store).get(key, max_bytes=1 << 26)


def add_predictions(chunks: list[dict[str, Any]], forecast: Forecast) -> None:
    """Put beside what was measured of every chunk what had been predicted."""
    for chunk in chunks:
        expected = forecast.of(chunk["chunk"])
        chunk["predicted_prove_s"] = expected.prove_s
        chunk["predicted_peak_bytes"] = expected.peak_bytes


def describe(manifest: Manifest) -> dict[str, Any]:
    """What a benchmark keeps of a manifest."""
    began_s = next(stage.span.started_s for stage in manifest.stages if stage.stage == "prove")
    return {
        "circuits": len(manifest.chunks),
        "linked": True,  # the run verified, and that includes every boundary
        "keys_made": sum(chunk.keys_made for chunk in manifest.chunks),
        "proof_bytes": sum(chunk.proof_bytes for chunk in manifest.chunks),
        "setup_s": sum(chunk.setup.seconds for chunk in manifest.chunks),
        "stages": [[stage.stage, stage.span.seconds] for stage in manifest.stages],
        "chunks": [
            {
                "chunk": chunk.chunk,
                "worker": chunk.worker,
                "threads": chunk.threads,
                "started_s": chunk.setup.started_s - began_s,
                "setup_s": chunk.setup.seconds,
                "witness_s": chunk.witness.seconds,
                "prove_s": chunk.prove.seconds,
                "verify_s": chunk.verify_s,
                "peak_rss_bytes": chunk.peak_rss_bytes,
            }
            for chunk in manifest.chunks
        ],
    }
