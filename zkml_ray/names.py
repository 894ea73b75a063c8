"""Logical names of a run's artifacts, as they stand in a manifest."""

from __future__ import annotations

from typing import Final

SEALED_PLAN: Final = "plans/sealed.json"
MODEL: Final = "models/original.onnx"
NORMALISED: Final = "models/normalised.onnx"
REQUEST: Final = "request.json"
PLAN: Final = "plan.json"
FORECAST: Final = "forecast.json"
SRS: Final = "srs.json"
INPUT: Final = "private/input.json"
REPORTS: Final = "reports/"
"""What begins with this is for people; it may be written when a run is complete, too."""

EVENTS: Final = "reports/events-"
"""What happened in one process that worked on the run."""

REPORT: Final = "reports/report.html"
TRACE: Final = "reports/trace.json"
PRIVATE: Final = "private/"
"""What begins with this is secret to the prover and never needed by a verifier."""

CHUNK_KEYS: Final = "keys/chunk-"
"""What begins with this is a chunk's key or says where its keys lie."""


def events(process: str) -> str:
    """What happened in one process, by a name that sorts by its start."""
    return f"{EVENTS}{process}.json"


def chunk_model(chunk_id: str) -> str:
    """A chunk's ONNX model."""
    return f"circuits/{chunk_id}/model.onnx"


def settings(chunk_id: str) -> str:
    """A chunk's canonical settings."""
    return f"circuits/{chunk_id}/settings.json"


def weights(chunk_id: str) -> str:
    """The weights of a chunk's products that its circuit does not hold."""
    return f"circuits/{chunk_id}/weights.bin"


def verifying_key(chunk_id: str) -> str:
    """A chunk's verifying key."""
    return f"keys/{chunk_id}/vk.key"


def proving_key(chunk_id: str) -> str:
    """A chunk's proving key, where a run keeps it."""
    return f"keys/{chunk_id}/pk.key"


def key_index(chunk_id: str) -> str:
    """Where a chunk's keys are found by those who would otherwise make them."""
    return f"keys/{chunk_id}/index.json"


def srs(logrows: int) -> str:
    """The SRS of one size."""
    return f"keys/srs/kzg{logrows}.srs"


def verifier_srs(logrows: int) -> str:
    """The part of an SRS that checking a proof takes; an SRS file itself."""
    return f"keys/srs/kzg{logrows}.verifier.srs"


def table(index: int) -> str:
    """A quantised table of the plan's look-ups, by its place among them."""
    return f"models/table-{index:03d}.bin"


def proof(chunk_id: str) -> str:
    """A chunk's proof, in canonical form."""
    return f"proofs/{chunk_id}.json"


def checkpoint(index: int) -> str:
    """A boundary's private checkpoint, by its position in the plan."""
    return f"private/boundary-{index:03d}.json"


def finished(chunk_id: str) -> str:
    """How a chunk was proved."""
    return f"records/{chunk_id}.json"
