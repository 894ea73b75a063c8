"""If whose condition is known: the branch that is taken, in its place."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from zkml_ray.chunking.normal_form.structure import move_output


class TakeBranches(InPlacePass):
    """Pre: constants are initializers. Post: no If has a constant condition. Exact."""

    def call(self, model: ir.Model) -> PassResult:
        """Put the taken branch's nodes in place of every such If."""
        modified = False
        for node in list(model.graph):
            condition = node.inputs[0] if node.op_type == "If" and node.inputs else None
            known = None if condition is None else ir.convenience.get_const_tensor(condition)
            if known is None:
                continue
            taken = "then_branch" if bool(known.numpy().all()) else "else_branch"
            _take(model, node, node.attributes[taken].as_graph())
            modified = True
        return PassResult(model, modified=modified)


def _take(model: ir.Model, node: ir.Node, branch: ir.Graph) -> None:
    prefix = node.name or node.outputs[0].name or "if"
    for name, value in list(branch.initializers.items()):
        branch.initializers.pop(name)
        value.name = f"{prefix}/{name}"
        model.graph.register_initializer(value)
    results = list(branch.outputs)
    branch.outputs.clear()
    inner = list(branch)
    branch.remove(inner)
    for each in inner:
        each.name = f"{prefix}/{each.name}"
        for output in each.outputs:
            output.name = f"{prefix}/{output.name}"
    model.graph.insert_before(node, inner)
    for old, result in zip(node.outputs, results, strict=True):
        if result.producer() not in inner or result.is_graph_output():
            handed = ir.node("Identity", [result], name=f"{prefix}/{old.name}")
            model.graph.insert_before(node, handed)
            result = handed.outputs[0]
        move_output(old, result)
    model.graph.remove(node, safe=True)
