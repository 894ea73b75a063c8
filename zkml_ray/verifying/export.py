"""A run's proofs as files that stock ezkl verifies, without any code of this package.

Per chunk: `proof.json` in ezkl's form, `settings.json`, `vk.key`; beside them one SRS file per size
(the 388 bytes that a verifier needs are an SRS file themselves) and `index.json`, which says which
public instances are which boundary's leaves. With ezkl 23.0.5:

    ezkl.verify("chunk-000/proof.json", "chunk-000/settings.json", "chunk-000/vk.key",
                "kzg10.srs", reduced_srs=True)

What that shows is that each proof verifies under the key beside it, no more: that the keys are
those of the model, that chunks agree on their boundaries and that the statement holds is for
`zkml_ray.verifying.verifier`.
"""

from __future__ import annotations

import json
from pathlib import Path

from zkml_ray import names
from zkml_ray.errors import ConfigError, StoreError
from zkml_ray.schema.manifest import Manifest
from zkml_ray.schema.plan import ChunkPlan, Plan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.scratch import scratch_folder
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.verifying.reader import (
    MAX_MANIFEST_BYTES,
    MAX_PROOF_DOCUMENT_BYTES,
    MAX_SETTINGS_BYTES,
    PinnedReader,
    manifest_bytes,
)


def export_ezkl(store: ArtifactStore, layout: RunLayout, folder: Path) -> list[Path]:
    """Write a run's proofs for stock ezkl.

    Args:
        store: Where the run lies (a bundle will do).
        layout: Its project and id.
        folder: Receives the files; it must not exist, or be empty.

    Returns:
        The chunks' folders, in plan order.

    Raises:
        ConfigError: There is no such run, or the folder is not empty.
        ManifestError: The manifest is not valid.
        VerificationError: An object of the run is missing or not the one recorded.
        StoreError: The store cannot be read, or a file cannot be written.
    """
    manifest = Manifest.parse_canonical(
        manifest_bytes(store, layout), what="manifest", max_bytes=MAX_MANIFEST_BYTES
    )
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: name a new folder")
    with scratch_folder() as temporary:
        reader = PinnedReader(manifest, store, temporary)
        sealed = reader.sealed_plan(manifest.plan_sha256)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for srs in sealed.srs:
                _copy(reader.srs(srs), folder / f"kzg{srs.logrows}.srs")
            for chunk, pin in zip(sealed.plan.chunks, sealed.verifying_keys, strict=True):
                _export_chunk(reader, chunk, pin.sha256, folder / chunk.id)
            index = {chunk.id: _index(sealed.plan, chunk) for chunk in sealed.plan.chunks}
            (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror}") from None
    return [folder / chunk.id for chunk in sealed.plan.chunks]


def _export_chunk(reader: PinnedReader, chunk: ChunkPlan, vk_sha256: str, folder: Path) -> None:
    folder.mkdir()
    data = reader.read(names.proof(chunk.id), max_bytes=MAX_PROOF_DOCUMENT_BYTES)
    ChunkProof.parse_canonical(data, what=f"proof of {chunk.id}").write_ezkl(folder / "proof.json")
    settings = names.settings(chunk.id)
    _copy(
        reader.file(settings, max_bytes=MAX_SETTINGS_BYTES, pinned=chunk.settings_sha256),
        folder / "settings.json",
    )
    _copy(reader.verifying_key(chunk.id, vk_sha256, None), folder / "vk.key")


def _index(plan: Plan, chunk: ChunkPlan) -> dict[str, object]:
    first, instances = 0, {}
    for name in chunk.touched():
        count = plan.boundary(name).layout.leaf_count
        instances[name] = {"first_instance": first, "leaves": count}
        first += count
    return {"srs": f"kzg{chunk.arguments.logrows}.srs", "boundaries": instances}


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
