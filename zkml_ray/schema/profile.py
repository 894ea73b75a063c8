"""A machine's prices: what the cost model multiplies a circuit's sizes with.

Read from outside (`--profile`, ZKML_RAY_PROFILE, this machine's cache), so it is a document.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zkml_ray.schema.document import Document, Name, Text

Price = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=0, le=1 << 50)]


class Prices(Document):
    """One quantity's price of each feature of a circuit (see `zkml_ray.cost.model.features`).

    Attributes:
        fixed: Per circuit.
        row: Per row: hash region, tables and permutation have a number of columns of their own.
        main: Per row and column of the main region.
        block: Per row and block of the main region: its accumulating gates.
        batch: Per row and batch of range checks.
        einsum: Per row and column of Freivalds' argument.
        table: Per row and (lookup table, main column).
        shuffle: Per row and (shuffle output, main column).
        cell: Per assigned cell.
    """

    fixed: Price
    row: Price
    main: Price
    block: Price
    batch: Price
    einsum: Price
    table: Price
    shuffle: Price
    cell: Price


class Profile(Document):
    """A calibrated machine.

    Attributes:
        format: Version of this schema.
        machine: What was measured, for people.
        ezkl_version: The backend that was measured.
        measured_at: UTC time, ISO 8601.
        samples: Circuits that were measured.
        prove_core_s: CPU seconds of proving on one thread.
        setup_core_s: CPU seconds of compiling and making keys on one thread.
        prove_bytes: Growth of the resident set while a witness is made and proved.
        setup_bytes: The same while keys are made.
        serial_share: Share of proving that further threads do not speed up.
        worker_bytes: Resident set of an idle worker (Python, Ray, this package).
        chunk_s: Seconds that a worker spends on a chunk besides proving it (objects, witness).
    """

    format: Literal["zkml_ray/profile/1"] = "zkml_ray/profile/1"
    machine: Text
    ezkl_version: Name
    measured_at: Text
    samples: Annotated[int, Field(ge=0, le=10_000)]
    prove_core_s: Prices
    setup_core_s: Prices
    prove_bytes: Prices
    setup_bytes: Prices
    serial_share: Annotated[float, Field(ge=0, le=1)]
    worker_bytes: Positive
    chunk_s: Price
