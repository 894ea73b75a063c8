"""The boundary values of a run under way: taken from the journal, or made.

Each is a checkpoint in the store, from which any worker regenerates the witness of a chunk that
touches it. A stored checkpoint is taken as it is, except an input's, which must be the quantised
input; whatever is wrong in one shows when its chunk's witness is regenerated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from zkml_ray.circuits.derive import DerivedCircuits
from zkml_ray.circuits.keycache import KeyCache
from zkml_ray.commitments.leaves import draw_salts, hash_leaves, pack_leaves
from zkml_ray.run.journal import Journal
from zkml_ray.schema.checkpoint import BoundaryCheckpoint
from zkml_ray.schema.plan import BoundaryPlan, ChunkPlan
from zkml_ray.scratch import scratch_folder
from zkml_ray.stages.inputs import Arrays, quantise
from zkml_ray.stages.witness import BoundaryValues, forward


class Activations:
    """Values and salts of every boundary of a plan, in the order of its chunks."""

    def __init__(
        self,
        circuits: DerivedCircuits,
        journal: Journal,
        arrays: Arrays,
        salt_seed: bytes | None,
    ) -> None:
        """Begin with none.

        Args:
            circuits: The plan and its circuits.
            journal: The run's objects.
            arrays: The model's input, by name.
            salt_seed: Draw salts from this seed instead of the operating system.
        """
        self._circuits = circuits
        self._journal = journal
        self._arrays = arrays
        self._salt_seed = salt_seed
        plan = circuits.plan
        self._boundaries = {boundary.name: boundary for boundary in plan.boundaries}
        self._positions = {boundary.name: i for i, boundary in enumerate(plan.boundaries)}
        self.values: dict[str, BoundaryValues] = {}

    def by_chunk(self) -> Iterator[tuple[ChunkPlan, float]]:
        """Every chunk once all its boundaries are known, and the seconds that took.

        Raises:
            StageError: A chunk's circuit cannot take the values that reach it.
            InputError: The input is outside the quantised range.
            StoreError: A checkpoint cannot be stored.
        """
        for name in self._circuits.plan.model_inputs:
            self._take_or_make_input(self._boundaries[name])
        for chunk in self._circuits.plan.chunks:
            started = time.time()
            self._take_or_make_outgoing(chunk)
            yield chunk, time.time() - started

    def expected_instances(self, chunk: ChunkPlan) -> list[int]:
        """The public instances that a chunk's proof must show."""
        return [leaf for name in chunk.touched() for leaf in self._leaf_hashes(name)]

    def positions(self, chunk: ChunkPlan) -> Mapping[str, int]:
        """Position of every boundary that a chunk touches."""
        return {name: self._positions[name] for name in chunk.touched()}

    def real_outputs(self) -> dict[str, npt.NDArray[np.float64]]:
        """The model's outputs as real numbers, in the model's shapes."""
        outputs = {}
        for name in self._circuits.plan.model_outputs:
            boundary = self._boundaries[name]
            integers = np.array(self.values[name].values, dtype=np.float64)
            outputs[name] = (integers / (1 << boundary.scale)).reshape(boundary.shape)
        return outputs

    def _take_or_make_input(self, boundary: BoundaryPlan) -> None:
        layout = boundary.layout.layout()
        values = quantise(
            boundary.name, self._arrays[boundary.name], boundary.scale, layout.packing
        )
        stored = self._journal.checkpoint(self._positions[boundary.name])
        if stored is not None and list(stored.values) == values:
            self.values[boundary.name] = BoundaryValues(values=values, salts=stored.salts)
            return
        self._keep(boundary.name, BoundaryValues(values=values, salts=self._salts(boundary)))

    def _take_or_make_outgoing(self, chunk: ChunkPlan) -> None:
        stored = {name: self._journal.checkpoint(self._positions[name]) for name in chunk.outputs}
        known = {name: found for name, found in stored.items() if found is not None}
        if len(known) == len(chunk.outputs) and all(
            found.boundary == name for name, found in known.items()
        ):
            for name, found in known.items():
                self.values[name] = BoundaryValues(values=found.values, salts=found.salts)
            return
        files = self._circuits.files[chunk.id]
        circuit = KeyCache().circuit(files.onnx, files.settings)
        with scratch_folder() as folder:
            made = forward(
                chunk,
                self._boundaries,
                circuit,
                {name: self.values[name] for name in chunk.inputs},
                {name: self._salts(self._boundaries[name]) for name in chunk.outputs},
                folder / "witness.json",
            )
        for name, result in made.outgoing.items():
            self._keep(name, result)

    def _salts(self, boundary: BoundaryPlan) -> list[int]:
        return draw_salts(boundary.layout.layout(), seed=self._salt_seed, label=boundary.name)

    def _keep(self, name: str, made: BoundaryValues) -> None:
        self.values[name] = made
        self._journal.keep_checkpoint(
            self._positions[name],
            BoundaryCheckpoint(
                run_id=self._journal.layout.run_id,
                boundary=name,
                values=tuple(made.values),
                salts=tuple(made.salts),
            ),
        )

    def _leaf_hashes(self, name: str) -> list[int]:
        made = self.values[name]
        layout = self._boundaries[name].layout.layout()
        return hash_leaves(pack_leaves(made.values, made.salts, layout))
