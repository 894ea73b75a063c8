"""What a run keeps in the store, object by object.

A run is under way once its request is stored, and complete once its manifest is. Between the two,
every object is written as soon as it exists, in an order that makes the last of a group its proof
of completeness: a chunk is finished when its *proof* is there, because its key and its record are
written before it. Shared objects are content-addressed and written once a project.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from zkml_ray import names
from zkml_ray.canonical import sha256_hex
from zkml_ray.circuits.derive import CircuitFiles, DerivedCircuits
from zkml_ray.circuits.keycache import circuit_name
from zkml_ray.circuits.keyindex import KeyIndex, find_keys
from zkml_ray.circuits.srs import SrsFile, trust_of, verifier_srs
from zkml_ray.errors import (
    ArtifactNotFoundError,
    ConfigError,
    DigestMismatchError,
    ManifestError,
    ObjectTooLargeError,
    RunExistsError,
)
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.document import MAX_DOCUMENT_BYTES, Document
from zkml_ray.schema.forecast import Forecast
from zkml_ray.schema.manifest import ChunkRecord, Manifest
from zkml_ray.schema.plan import ChunkPlan, Plan, SealedPlan
from zkml_ray.schema.proof import ChunkProof
from zkml_ray.schema.request import ChosenSrs, FinishedChunk, RunRequest
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout
from zkml_ray.stores.objectcache import ObjectCache

DocumentT = TypeVar("DocumentT", bound=Document)

_MISSING_OR_DAMAGED = (ArtifactNotFoundError, DigestMismatchError, ObjectTooLargeError)
"""What a run can mend by making it again. A store that does not answer is no such case."""


class Journal:
    """One run's objects."""

    def __init__(self, store: ArtifactStore, layout: RunLayout) -> None:
        self.store = store
        self.layout = layout
        self.artifacts: dict[str, ArtifactRef] = {}
        self._objects = ObjectCache(store)  # keeps the SRS files of a resumed run for its duration

    def check_new(self) -> None:
        """Refuse an id that is taken, and a store that cannot be written to.

        Raises:
            RunExistsError: The run exists, complete or not.
            StoreError: The store cannot be written to.
        """
        where = f"in project {self.layout.project} of {self.store.url}"
        if self.store.size(self.layout.manifest) is not None:
            raise RunExistsError(
                f"run {self.layout.run_id} exists already {where}; choose another --run, or "
                "leave it out"
            )
        if self.store.size(self.layout.run_key(names.REQUEST)) is not None:
            raise RunExistsError(
                f"run {self.layout.run_id} is under way {where}; continue it with: zkml-ray "
                f"resume {self.layout.run_id}, or choose another --run"
            )
        probe = self.layout.run_key("probe")
        self.store.put(probe, b"")
        self.store.delete(probe)

    def begin(self, request: RunRequest) -> None:
        """Store the request: from now on the run can be resumed."""
        self.store.put(self.layout.run_key(names.REQUEST), request.to_bytes())

    def request(self) -> RunRequest:
        """The stored request of a run that is not complete.

        Raises:
            RunExistsError: The run is complete.
            ConfigError: No such run was begun here.
        """
        if self.store.size(self.layout.manifest) is not None:
            raise RunExistsError(
                f"run {self.layout.run_id} is complete; verify it with: zkml-ray verify "
                f"{self.layout.run_id}"
            )
        request = self._document(RunRequest, names.REQUEST)
        if request is None:
            raise ConfigError(
                f"no run {self.layout.run_id} was begun in project {self.layout.project} of "
                f"{self.store.url}"
            )
        return request

    def share(self, name: str, kind: str, data: bytes) -> ArtifactRef:
        """Store a content-addressed object under a logical name."""
        key = self.layout.artifact_key(kind, sha256_hex(data))
        self.artifacts[name] = self.store.store_shared(key, data)
        return self.artifacts[name]

    def keep(self, name: str, data: bytes) -> ArtifactRef:
        """Store an object of this run alone under a logical name."""
        self.artifacts[name] = self.store.store(self.layout.run_key(name), data)
        return self.artifacts[name]

    def keep_srs(self, files: Iterable[SrsFile]) -> None:
        """Store a run's SRS files, then which they are."""
        pins = []
        for file in files:
            key = self.layout.artifact_key("srs", file.sha256)
            self.artifacts[names.srs(file.logrows)] = self.store.store_shared_file(
                key, file.path, file.sha256
            )
            self._share_verifier_srs(file)
            pins.append(file.pin())
        document = ChosenSrs(pins=tuple(pins))
        self.store.put(self.layout.run_key(names.SRS), document.to_bytes())

    def srs(self, sizes: Collection[int]) -> dict[int, SrsFile] | None:
        """The SRS files that the run began with, or None where one of these sizes is missing."""
        chosen = self._document(ChosenSrs, names.SRS)
        pins = {} if chosen is None else {pin.logrows: pin for pin in chosen.pins}
        files = {}
        for logrows in sizes:
            pin = pins.get(logrows)
            key = None if pin is None else self.layout.artifact_key("srs", pin.sha256)
            size_bytes = None if key is None else self.store.size(key)
            if pin is None or key is None or size_bytes is None:
                return None
            ref = ArtifactRef(key=key, sha256=pin.sha256, size_bytes=size_bytes)
            self.artifacts[names.srs(logrows)] = ref
            files[logrows] = SrsFile(
                logrows=logrows,
                path=self._objects.path(ref),
                sha256=pin.sha256,
                trust=trust_of(logrows, pin.sha256),
            )
            self._share_verifier_srs(files[logrows])
        return files

    def keep_circuits(self, circuits: DerivedCircuits) -> None:
        """Store a plan and its circuits; the plan last."""
        self.share(names.NORMALISED, "models", circuits.normalised)
        for index, table in enumerate(circuits.tables):
            self.share(names.table(index), "models", table)
        for chunk_id, files in circuits.files.items():
            self.share(names.chunk_model(chunk_id), "circuits", files.onnx)
            self.share(names.settings(chunk_id), "circuits", files.settings)
            if files.weights is not None:
                self.share(names.weights(chunk_id), "circuits", files.weights)
        self.store.put(self.layout.run_key(names.PLAN), circuits.plan.to_bytes())

    def keep_forecast(self, forecast: Forecast) -> None:
        """Store what the plan is expected to cost, for people; nothing reads it back."""
        self.store.put(self.layout.run_key(names.FORECAST), forecast.to_bytes())

    def circuits(self) -> DerivedCircuits | None:
        """The stored plan and its circuits, or None where any of them is missing or damaged."""
        plan = self._document(Plan, names.PLAN)
        if plan is None:
            return None
        try:
            normalised = self._shared(names.NORMALISED, "models", plan.normalised_sha256)
            tables = tuple(
                self._shared(names.table(index), "models", lookup.table_sha256)
                for index, lookup in enumerate(plan.lookups)
            )
            files = {
                chunk.id: CircuitFiles(
                    onnx=self._shared(names.chunk_model(chunk.id), "circuits", chunk.onnx_sha256),
                    settings=self._shared(
                        names.settings(chunk.id), "circuits", chunk.settings_sha256
                    ),
                    weights=None
                    if chunk.weights_sha256 is None
                    else self._shared(names.weights(chunk.id), "circuits", chunk.weights_sha256),
                )
                for chunk in plan.chunks
            }
        except _MISSING_OR_DAMAGED:
            return None
        return DerivedCircuits(plan=plan, files=files, normalised=normalised, tables=tables)

    def keep_checkpoint(self, position: int, checkpoint: BoundaryCheckpoint) -> None:
        """Store a boundary's values and salts."""
        self.keep(names.checkpoint(position), checkpoint.to_bytes())

    def checkpoint(self, position: int) -> BoundaryCheckpoint | None:
        """A boundary's stored checkpoint, or None where it is missing or damaged."""
        name = names.checkpoint(position)
        found = self._document(BoundaryCheckpoint, name)
        if found is None or found.run_id != self.layout.run_id:
            return None
        data = found.to_bytes()
        self.artifacts[name] = ArtifactRef(
            key=self.layout.run_key(name), sha256=sha256_hex(data), size_bytes=len(data)
        )
        return found

    def finish_chunk(self, record: ChunkRecord, vk: bytes, proof: ChunkProof) -> None:
        """Store a proved chunk: key, record, then the proof, which makes it finished."""
        data = proof.to_bytes()
        name = names.proof(record.chunk)
        vk_ref = self.share(names.verifying_key(record.chunk), "keys", vk)
        proof_ref = ArtifactRef(
            key=self.layout.run_key(name), sha256=sha256_hex(data), size_bytes=len(data)
        )
        document = FinishedChunk(
            run_id=self.layout.run_id, record=record, vk=vk_ref, proof=proof_ref
        )
        self.keep(names.finished(record.chunk), document.to_bytes())
        self.keep(name, data)

    def finished_chunk(self, chunk_id: str) -> tuple[ChunkRecord, bytes, ChunkProof] | None:
        """A chunk that was finished before: its record, verifying key and proof, unchecked."""
        document = self._document(FinishedChunk, names.finished(chunk_id))
        if document is None or document.run_id != self.layout.run_id:
            return None
        try:
            vk = self._read_shared(document.vk)
            proof = ChunkProof.parse(
                self.store.read_verified(document.proof), what=f"proof of {chunk_id}"
            )
        except (*_MISSING_OR_DAMAGED, ManifestError):
            return None
        data = document.to_bytes()
        self.artifacts[names.verifying_key(chunk_id)] = document.vk
        self.artifacts[names.proof(chunk_id)] = document.proof
        self.artifacts[names.finished(chunk_id)] = ArtifactRef(
            key=self.layout.run_key(names.finished(chunk_id)),
            sha256=sha256_hex(data),
            size_bytes=len(data),
        )
        return document.record, vk, proof

    def stored_keys(self, chunk: ChunkPlan, srs_sha256: str) -> KeyIndex | None:
        """Where a chunk's keys lie in the store, under whatever run they were made, or None."""
        circuit = circuit_name(chunk.onnx_sha256, chunk.settings_sha256)
        found = find_keys(self.store, self.layout, circuit, srs_sha256)
        if found is None:
            return None
        self.artifacts[names.key_index(chunk.id)], index = found
        self.artifacts[names.proving_key(chunk.id)] = index.pk
        return index

    def listed(self, *, private: bool, keys: bool) -> dict[str, ArtifactRef]:
        """What the manifest lists, with or without what is secret to the prover and chunks' keys.

        Keys that are not listed lie in the store until `gc` finds that no run refers to them.
        """
        return {
            name: ref
            for name, ref in self.artifacts.items()
            if (private or not name.startswith(names.PRIVATE))
            and (keys or not name.startswith(names.CHUNK_KEYS))
        }

    def seal(self, sealed: SealedPlan) -> str:
        """Store the sealed plan and return its digest."""
        return self.share(names.SEALED_PLAN, "plans", sealed.to_bytes()).sha256

    def forget_private(self) -> None:
        """Remove the input, the boundary values and the salts from the store."""
        for name in [name for name in self.artifacts if name.startswith(names.PRIVATE)]:
            self.store.delete(self.artifacts.pop(name).key)

    def complete(self, manifest: Manifest) -> None:
        """Write the manifest: the run exists."""
        self.store.put(self.layout.manifest, manifest.to_bytes())

    def _share_verifier_srs(self, file: SrsFile) -> None:
        part = verifier_srs(file.path, file.logrows)
        self.share(names.verifier_srs(file.logrows), "srs", part)

    def _shared(self, name: str, kind: str, sha256: str) -> bytes:
        key = self.layout.artifact_key(kind, sha256)
        size_bytes = self.store.size(key)
        if size_bytes is None:
            raise ArtifactNotFoundError(f"the store has no {key}")
        ref = ArtifactRef(key=key, sha256=sha256, size_bytes=size_bytes)
        data = self._read_shared(ref)
        self.artifacts[name] = ref
        return data

    def _read_shared(self, ref: ArtifactRef) -> bytes:
        """Read a shared object; a damaged one is removed, so that it is stored again when made."""
        try:
            return self.store.read_verified(ref)
        except DigestMismatchError:
            if ref.key == self.layout.artifact_key(ref.key.split("/")[-2], ref.sha256):
                self.store.delete(ref.key)
            raise

    def _document(self, kind: type[DocumentT], name: str) -> DocumentT | None:
        try:
            data = self.store.get(self.layout.run_key(name), max_bytes=MAX_DOCUMENT_BYTES)
            return kind.parse(data, what=name)
        except (ArtifactNotFoundError, ManifestError):
            return None
