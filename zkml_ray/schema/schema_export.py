"""The JSON Schemas of the documents that a run leaves, as docs/schema publishes them.

    python -m zkml_ray.schema.schema_export docs/schema

They describe form alone. What a document must say besides (canonical bytes, digests, a complete
graph) is the verifier's to check.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from zkml_ray.commitments.opening import Opening
from zkml_ray.schema.eventlog import EventLog
from zkml_ray.schema.forecast import Forecast
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import Plan, SealedPlan
from zkml_ray.schema.profile import Profile
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.schema.request import RunRequest

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DOCUMENTS: Final[dict[str, type[BaseModel]]] = {
    "events": EventLog,
    "forecast": Forecast,
    "manifest": Manifest,
    "opening": Opening,
    "plan": Plan,
    "profile": Profile,
    "proof": ChunkProof,
    "request": RunRequest,
    "sealed-plan": SealedPlan,
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of one document."""
    model = DOCUMENTS[name]
    return {"$schema": DIALECT, **model.model_json_schema(), "title": _version(model)}


def text(name: str) -> str:
    """The file that docs/schema holds of one document."""
    return json.dumps(schema(name), indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every schema into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in DOCUMENTS:
        (folder / f"{name}.schema.json").write_text(text(name), encoding="utf-8")


def _version(model: type[BaseModel]) -> str:
    return str(model.model_fields["format"].default)


if __name__ == "__main__":
    main()
