"""Nodes of a native chunk, written so that ezkl computes them as precisely as its scale allows.

ezkl 23.0.5 rounds every fractional constant to the circuit's scale S: harmless where the constant
is added, wrong where it multiplies and is small. 1/n of an average over n = 2,049 elements is 0 at
S = 10. So constants that multiply are written as whole numbers and powers of two here
(`writer.Writer.times`), in

- Mul by and Div by constants; LeakyRelu;
- ReduceMean and GlobalAveragePool, which become sums times 1/n (AveragePool divides exactly);
- Div by a tensor, whose reciprocal keeps spare bits and is corrected once;
- LayerNormalization that no pass rewrote, which becomes what ONNX defines it as;
- Softmax with dropped keys, which ezkl has not (`masks`);
- Floor, whose rebase leaves a choice that its remainder settles; Sign, which comes to the scale S;
  Relu of a Sign, which becomes one Sign (whether x is above 0);
- Conv, Gemm, MatMul and Einsum whose weights are small, and Gemm's alpha and beta.

What ezkl refuses, or can only do in a smaller range, is written with what it can: a convolution
with dilations (`windows`), Max and Min with several constants, whole powers.

Lowering belongs to the derivation of a chunk, not to the plan: no plan can ask for a circuit
without it, and whoever derives the circuit again gets the same nodes. It comes after all rewrites
and before value bounds are looked at, so those hold for the nodes that ezkl sees (docs/adr/0003,
0021). It leaves every output's name and shape as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from zkml_ray.chunking.graph import ModelGraph
from zkml_ray.chunking.native import functions, masks, products
from zkml_ray.chunking.native.chunk import Chunk, Rule
from zkml_ray.chunking.native.weights import lower_gemm, lower_product

RULES: Final[Mapping[str, Rule]] = {
    "Conv": products.conv,
    "Div": products.divide,
    "Einsum": lower_product,
    "Floor": functions.floor,
    "Gemm": lower_gemm,
    "GlobalAveragePool": products.mean,
    "LayerNormalization": functions.layer_norm,
    "LeakyRelu": functions.leaky_relu,
    "MatMul": products.matmul,
    "Max": functions.extreme,
    "Min": functions.extreme,
    "Mul": products.times_constants,
    "Pow": products.power,
    "Relu": functions.is_positive,
    "ReduceMean": products.mean,
    "Sign": functions.sign,
    "Softmax": masks.softmax,
    "Where": masks.where,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What became of a chunk's nodes.

    Attributes:
        nodes: In topological order.
        constants: Initializers by name: those of the model that are still read, and new ones.
    """

    nodes: list[onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]


def lower_nodes(
    graph: ModelGraph,
    nodes: Sequence[str],
    raised: Mapping[str, int],
    *,
    scale: int,
    range_bits: int,
) -> Lowered:
    """Lower a chunk's nodes.

    Args:
        graph: The normalised, possibly rewritten model.
        nodes: The chunk's nodes, in topological order.
        raised: By tensor that the chunk reads, its scale less the circuit's.
        scale: The circuit's scale.
        range_bits: Bits of what the circuit can take apart into digits.

    Raises:
        ChunkingError: A node cannot be proved.
    """
    chunk = Chunk(graph, raised, nodes=nodes, rules=RULES, scale=scale, max_bits=range_bits - 2)
    for name in nodes:
        chunk.visit(graph.nodes[name])
    used = {value for node in chunk.nodes for value in node.input}
    known = {**graph.initializers, **chunk.constants}
    kept = {name: known[name] for name in sorted(used & known.keys())}
    return Lowered(nodes=chunk.nodes, constants=kept)
