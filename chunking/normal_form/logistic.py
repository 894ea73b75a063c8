"""1 / (1 + e^z), written out: Sigmoid(-z), whose result stays in range whatever z is."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.graph import Place, sizes


class LogisticFunction(InPlacePass):
    """Pre: shapes known, constants are initializers. Post: no 1 / (1 + e^z). Exact."""

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every such quotient."""
        modified = False
        for node in list(model.graph):
            argument = _argument(node)
            if argument is None:
                continue
            place, shape = Place(model, node), sizes(argument, node)
            if shape != sizes(node.outputs[0], node):
                continue
            negated = argument.producer()
            if negated is not None and negated.op_type == "Neg" and negated.inputs[0] is not None:
                turned = negated.inputs[0]
            else:
                turned = place.node("Neg", [argument], shape)
            place.finish(place.node("Sigmoid", [turned], shape))
            modified = True
        return PassResult(model, modified=modified)


def _argument(node: ir.Node) -> ir.Value | None:
    """The z of a quotient 1 / (1 + e^z); None for any other node."""
    if node.op_type != "Div" or not _is_one(node.inputs[0]):
        return None
    total = None if node.inputs[1] is None else node.inputs[1].producer()
    if total is None or total.op_type != "Add":
        return None
    for one, power in (total.inputs, total.inputs[::-1]):
        made = None if power is None else power.producer()
        if _is_one(one) and made is not None and made.op_type == "Exp":
            return made.inputs[0]
    return None


def _is_one(value: ir.Value | None) -> bool:
    tensor = None if value is None else value.const_value
    return tensor is not None and bool((tensor.numpy() == 1).all()) and tensor.size > 0
