"""What a store holds about one run, complete or not, read for people.

Nothing is taken on trust that a verifier would not take: the verdict comes from `verify`, and what
is shown beside it is marked as the prover's word. Values are those that the statement reveals;
nothing below `private/` is read here. A document that is missing or damaged leaves a gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from zkml_ray import names
from zkml_ray.errors import (
    ArtifactNotFoundError,
    ConfigError,
    DigestMismatchError,
    ManifestError,
    ObjectTooLargeError,
    VerificationError,
)
from zkml_ray.schema.document import MAX_DOCUMENT_BYTES, Document
from zkml_ray.schema.eventlog import EventLog
from zkml_ray.schema.forecast import Forecast
from zkml_ray.schema.manifest import ChunkRecord, Manifest
from zkml_ray.schema.plan import BoundaryPlan, Plan, SealedPlan
from zkml_ray.schema.request import FinishedChunk, RunRequest
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verification import verify
from zkml_ray.verifying.reader import MAX_MANIFEST_BYTES, MAX_PLAN_BYTES
from zkml_ray.verifying.verdict import Verdict

State = Literal["complete", "failed", "interrupted", "under way"]
_MAX_LOGS: Final = 100
_GAPS = (ArtifactNotFoundError, DigestMismatchError, ManifestError, ObjectTooLargeError)
_DocumentT = TypeVar("_DocumentT", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """A boundary whose values anyone may see.

    Attributes:
        boundary: Its description.
        values: Real values, flat and row-major.
        floats: The float model's, where the prover kept them; the prover's word.
    """

    boundary: BoundaryPlan
    values: tuple[float, ...]
    floats: tuple[float | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run as its store shows it.

    Attributes:
        run_id: Its id.
        project: Its project.
        state: "complete" once it has a manifest; else how the last process left it.
        failure: What failed, in words; empty where nothing did.
        request: What was asked; None where that cannot be read.
        plan: Its plan; None before there is one.
        manifest: Its manifest; None before it is complete.
        records: How its chunks were proved, those that are, in plan order.
        forecast: What the plan was expected to cost.
        logs: What happened in each process that worked on it, in order.
        verdict: What verifying it said; None where it was refused or is not complete.
        refusal: Why it was refused.
        trust_root: What it was verified against: "model", "plan digest", or "" for the digest that
            its own manifest names.
    """

    run_id: str
    project: str
    state: State
    failure: str = ""
    request: RunRequest | None = None
    plan: Plan | None = None
    manifest: Manifest | None = None
    records: tuple[ChunkRecord, ...] = ()
    forecast: Forecast | None = None
    logs: tuple[EventLog, ...] = ()
    verdict: Verdict | None = None
    refusal: VerificationError | None = None
    trust_root: str = ""

    @property
    def model_file(self) -> str:
        """The model file's name, as the prover gave it."""
        named = self.manifest or self.request
        return named.model_file if named else ""

    def revealed(self) -> dict[str, Revealed]:
        """The boundaries that the statement opens, by name."""
        if self.manifest is None or self.plan is None:
            return {}
        known = {boundary.name: boundary for boundary in self.plan.boundaries}
        floats = {entry.output: entry.values for log in self.logs for entry in log.float_outputs}
        found = {}
        for entry in self.manifest.statement.revealed:
            boundary = known.get(entry.boundary)
            if boundary is None or len(entry.values) != math.prod(boundary.shape):
                continue
            beside = floats.get(entry.boundary)
            found[entry.boundary] = Revealed(
                boundary=boundary,
                values=tuple(value / (1 << boundary.scale) for value in entry.values),
                floats=beside if beside and len(beside) == len(entry.values) else None,
            )
        return found

    def commitments(self) -> Mapping[str, str]:
        """Per boundary, its commitment; none before the run is complete."""
        if self.manifest is None:
            return {}
        return {entry.boundary: entry.commitment for entry in self.manifest.boundaries}


def gather(
    store: ArtifactStore,
    layout: RunLayout,
    *,
    model: str | Path | None = None,
    plan_digest: str | None = None,
    verified: bool = True,
) -> RunFacts:
    """Read a run, and verify it if it is complete.

    Args:
        store: The store.
        layout: The run.
        model: Trust root: a copy of the model.
        plan_digest: Trust root: a plan's digest. Without either, the digest in the manifest.
        verified: Whether to verify at all.

    Raises:
        ConfigError: There is no such run.
        StoreError: The store cannot be read.
    """
    request = _document(store, RunRequest, layout.run_key(names.REQUEST))
    manifest_there = store.size(layout.manifest) is not None
    if request is None and not manifest_there:
        raise ConfigError(
            f"no run {layout.run_id} in project {layout.project} of {store.url}; list them with: "
            "zkml-ray runs"
        )
    manifest = _document(store, Manifest, layout.manifest, max_bytes=MAX_MANIFEST_BYTES)
    logs = _logs(store, layout)
    plan, records = _of_manifest(store, manifest) if manifest else _of_journal(store, layout)
    verdict, refusal = None, None
    if manifest_there and verified:
        named = manifest.plan_sha256 if manifest else "0" * 64
        root = plan_digest or (None if model is not None else named)
        try:
            verdict = verify(
                layout.run_id,
                store=store,
                project=layout.project,
                model=model,
                plan_digest=root,
                allow_insecure_srs=True,
            )
        except (VerificationError, ManifestError) as error:
            refusal = (
                error
                if isinstance(error, VerificationError)
                else VerificationError(error.message, code="manifest-schema")
            )
    last = logs[-1] if logs else None
    state: State = "under way"
    if manifest_there:
        state = "complete"
    elif last is not None and last.outcome in ("failed", "interrupted"):
        state = "failed" if last.outcome == "failed" else "interrupted"
    return RunFacts(
        run_id=layout.run_id,
        project=layout.project,
        state=state,
        failure=last.failure if last is not None and state == "failed" else "",
        request=request,
        plan=plan,
        manifest=manifest,
        records=records,
        forecast=_document(store, Forecast, layout.run_key(names.FORECAST)),
        logs=logs,
        verdict=verdict,
        refusal=refusal,
        trust_root="model" if model is not None else "plan digest" if plan_digest else "",
    )


def _of_manifest(
    store: ArtifactStore, manifest: Manifest
) -> tuple[Plan | None, tuple[ChunkRecord, ...]]:
    ref = manifest.artifacts.get(names.SEALED_PLAN)
    if ref is None or ref.size_bytes > MAX_PLAN_BYTES:
        return None, manifest.chunks
    try:
        data = store.read_verified(ref, max_bytes=MAX_PLAN_BYTES)
        return SealedPlan.parse(data, what="sealed plan").plan, manifest.chunks
    except _GAPS:
        return None, manifest.chunks


def _of_journal(
    store: ArtifactStore, layout: RunLayout
) -> tuple[Plan | None, tuple[ChunkRecord, ...]]:
    plan = _document(store, Plan, layout.run_key(names.PLAN))
    if plan is None:
        return None, ()
    found = []
    for chunk in plan.chunks:
        if store.size(layout.run_key(names.proof(chunk.id))) is None:
            continue
        finished = _document(store, FinishedChunk, layout.run_key(names.finished(chunk.id)))
        if finished is not None:
            found.append(finished.record)
    return plan, tuple(found)


def _logs(store: ArtifactStore, layout: RunLayout) -> tuple[EventLog, ...]:
    keys = sorted(store.keys(layout.run_key(names.EVENTS)))[-_MAX_LOGS:]
    found = [_document(store, EventLog, key) for key in keys]
    return tuple(log for log in found if log is not None and log.run_id == layout.run_id)


def _document(
    store: ArtifactStore,
    kind: type[_DocumentT],
    key: str,
    *,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> _DocumentT | None:
    try:
        return kind.parse(store.get(key, max_bytes=max_bytes), what=key, max_bytes=max_bytes)
    except _GAPS:
        return None
