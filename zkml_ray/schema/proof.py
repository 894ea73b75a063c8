"""The canonical form of a proof: public instances and proof bytes, nothing else.

ezkl's own proof file carries fields that its verifier ignores (pretty_public_inputs, timestamp,
version, hex_proof), and its transcript reader ignores bytes after the proof. Neither may decide
anything, so neither is stored: what is handed to `ezkl.verify` is a file re-built from this form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from zkml_ray.commitments.field import decode, encode
from zkml_ray.errors import FieldRangeError, ManifestError
from zkml_ray.schema.document import Document, Felt

MAX_PROOF_BYTES = 16 << 20


class ChunkProof(Document):
    """One chunk's proof.

    Attributes:
        format: Version of this schema.
        instances: Public instances in circuit order: the leaf hashes of every touched boundary.
        proof: The halo2 proof transcript, hexadecimal.
    """

    format: Literal["zkml_ray/proof/1"] = "zkml_ray/proof/1"
    instances: Annotated[tuple[Felt, ...], Field(max_length=1 << 20)]
    proof: Annotated[
        str, StringConstraints(pattern=r"^([0-9a-f]{2})+$", max_length=2 * MAX_PROOF_BYTES)
    ]

    def elements(self) -> list[int]:
        """The instances as canonical field elements.

        Raises:
            ManifestError: An instance is not below the field's modulus.
        """
        try:
            return [decode(instance) for instance in self.instances]
        except FieldRangeError as error:
            raise ManifestError(f"a proof's instance is not a field element: {error}") from None

    @classmethod
    def from_ezkl(cls, path: Path) -> ChunkProof:
        """Read ezkl's proof file.

        Raises:
            ManifestError: It is not one, or it does not have exactly one instance column.
        """
        raw: Any = json.loads(path.read_text())
        try:
            columns = raw["instances"]
            body = bytes(raw["proof"])
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestError(f"{path.name} is not an ezkl proof file: {error}") from None
        if len(columns) != 1:
            raise ManifestError(
                f"{path.name} has {len(columns)} instance columns; a chunk circuit has one"
            )
        return cls(instances=tuple(encode(decode(item)) for item in columns[0]), proof=body.hex())

    def write_ezkl(self, path: Path) -> None:
        """Write the proof file that `ezkl.verify` reads."""
        body = list(bytes.fromhex(self.proof))
        path.write_text(json.dumps({"instances": [list(self.instances)], "proof": body}))
