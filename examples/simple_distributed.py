"""Prove a multi-layer perceptron of any depth on Ray workers.

    python examples/simple_distributed.py --layers 4 --workers 2

The weights are seeded random numbers, the input too: what is shown is the machinery. Every layer
becomes a chunk, every chunk a proof, and the proofs are linked by commitments.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def build_mlp(layers: int, *, width: int = 16, outputs: int = 10, seed: int = 0) -> onnx.ModelProto:
    """Build a perceptron: Gemm and ReLU per layer, Gemm alone last.

    Args:
        layers: Number of Gemm operators, at least 1.
        width: Neurons per hidden layer, and inputs.
        outputs: Outputs of the last layer.
        seed: Seed of the weights.
    """
    generator = np.random.default_rng(seed)
    nodes, weights = [], []
    name = "x"
    for index in range(layers):
        last = index == layers - 1
        size = outputs if last else width
        weight = generator.normal(size=(width, size)) / np.sqrt(width)
        bias = generator.normal(size=(size,)) * 0.1
        weights += [
            numpy_helper.from_array(weight.astype(np.float32), f"w{index}"),
            numpy_helper.from_array(bias.astype(np.float32), f"b{index}"),
        ]
        made = "y" if last else f"z{index}"
        nodes.append(
            helper.make_node("Gemm", [name, f"w{index}", f"b{index}"], [made], f"fc{index}")
        )
        name = made
        if not last:
            nodes.append(helper.make_node("Relu", [name], [f"h{index}"], f"relu{index}"))
            name = f"h{index}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Build the model, prove it, verify it from the store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4, help="layers, each a chunk (default 4)")
    parser.add_argument("--workers", type=int, default=2, help="Ray workers (default 2)")
    parser.add_argument("--store", default=None, help="folder or URL (default ./zkml-ray-store)")
    arguments = parser.parse_args()
    if arguments.layers < 1:
        parser.error("--layers must be at least 1")

    from zkml_ray import prove_distributed, verify
    from zkml_ray.stages.plan import PlanOptions

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlp.onnx"
        onnx.save(build_mlp(arguments.layers), path)
        run = prove_distributed(
            path,
            workers=arguments.workers,
            store=arguments.store,
            options=PlanOptions(layers_per_chunk=1),  # one chunk a layer, as the demo promises
        )
        print(f"run {run.run_id}: verified {run.verified}")
        for record in run.manifest.chunks:
            print(f"  {record.chunk} on {record.worker}: proved in {record.prove.seconds:.2f} s")
        verdict = verify(run.run_id, store=run.store, model=path, allow_insecure_srs=True)
    print(verdict.statement)
    print("y =", " ".join(f"{value:.3f}" for value in run.outputs["y"].ravel()))


if __name__ == "__main__":
    main()
