"""Key pairs in the store: found by what they are keys of, so that a machine need not make them.

A pair's two objects are content-addressed. Its index lies under the name that the key cache gives
it, which is a digest of (circuit, SRS) and says nothing about the keys: whoever may write to the
store may point it at other ones. Fetched keys are re-hashed at every read and used for proving
alone; they never enter the key cache, from which `verify --model` takes the keys it has re-built.
A proof under a wrong key is refused: by the coordinator, unless key and proof fit each other, and
then by every verifier whose trust root is the model.
"""

from __future__ import annotations

from typing import Final, Literal

from zkml_ray.canonical import sha256_hex
from zkml_ray.circuits.keycache import CachedKeys, keys_name
from zkml_ray.errors import ArtifactNotFoundError, ManifestError
from zkml_ray.schema.artifact import ArtifactRef
from zkml_ray.schema.document import Document, Sha256
from zkml_ray.stores.base import ArtifactStore
from zkml_ray.stores.layout import RunLayout

MAX_INDEX_BYTES: Final = 1 << 16
KEYS_KIND: Final = "keys"
INDEX_KIND: Final = "key-indexes"


class KeyIndex(Document):
    """A circuit's keys under an SRS.

    Attributes:
        format: Version of this schema.
        circuit: Name of the circuit (see `zkml_ray.circuits.keycache.circuit_name`).
        srs: Digest of the SRS file.
        vk: The verifying key.
        pk: The proving key.
    """

    format: Literal["zkml_ray/key-index/1"] = "zkml_ray/key-index/1"
    circuit: Sha256
    srs: Sha256
    vk: ArtifactRef
    pk: ArtifactRef

    def name(self) -> str:
        """The name that the key cache gives these keys."""
        return keys_name(self.circuit, self.srs)


def index_key(layout: RunLayout, circuit: str, srs_sha256: str) -> str:
    """Key of the object that says where a circuit's keys lie."""
    return layout.artifact_key(INDEX_KIND, keys_name(circuit, srs_sha256))


def find_keys(
    store: ArtifactStore, layout: RunLayout, circuit: str, srs_sha256: str
) -> tuple[ArtifactRef, KeyIndex] | None:
    """Where a circuit's keys lie in a project, or None; their bytes are not looked at.

    Args:
        store: The store.
        layout: Gives the project.
        circuit: The circuit's name.
        srs_sha256: The SRS's digest.

    Returns:
        Reference of the index and the index, if it names this pair by content and both keys are
        there.

    Raises:
        StoreError: The store did not answer.
    """
    key = index_key(layout, circuit, srs_sha256)
    try:
        data = store.get(key, max_bytes=MAX_INDEX_BYTES)
        index = KeyIndex.parse(data, what=f"key index {key}")
    except (ArtifactNotFoundError, ManifestError):
        return None
    if (index.circuit, index.srs) != (circuit, srs_sha256):
        return None
    for ref in (index.vk, index.pk):
        if ref.key != layout.artifact_key(KEYS_KIND, ref.sha256):
            return None
        if store.size(ref.key) != ref.size_bytes:
            return None
    return ArtifactRef(key=key, sha256=sha256_hex(data), size_bytes=len(data)), index


def store_verifying_key(store: ArtifactStore, layout: RunLayout, pair: CachedKeys) -> ArtifactRef:
    """Store a pair's verifying key, unless it is there."""
    key = layout.artifact_key(KEYS_KIND, pair.vk_sha256)
    return store.store_shared_file(key, pair.vk, pair.vk_sha256)


def store_keys(
    store: ArtifactStore, layout: RunLayout, circuit: str, srs_sha256: str, pair: CachedKeys
) -> KeyIndex:
    """Store both keys and, last, where they lie.

    Raises:
        StoreError: The store could not be written to.
    """
    pk_key = layout.artifact_key(KEYS_KIND, pair.pk_sha256)
    index = KeyIndex(
        circuit=circuit,
        srs=srs_sha256,
        vk=store_verifying_key(store, layout, pair),
        pk=store.store_shared_file(pk_key, pair.pk, pair.pk_sha256),
    )
    store.put(index_key(layout, circuit, srs_sha256), index.to_bytes())
    return index
