"""Mutants of what no plan and no model may choose: weights of one output, sizes, names."""

from __future__ import annotations

from typing import Final

from tests.mutants.gate import Mutant

_OUTPUTS: Final = "tests/soundness/test_weights_of_one_output.py"
_REWRITES: Final = (
    f"{_OUTPUTS}::test_rewrite_that_would_wipe_out_an_output_is_refused_and_not_planned"
)
_NATIVE: Final = f"{_OUTPUTS}::test_native_circuits_keep_the_weights_of_every_output"
_EXTENT: Final = "tests/soundness/test_extent.py"
_TAKEN_APART: Final = (
    "tests/unit/test_verifier_graph.py::"
    "test_native_circuit_takes_apart_enough_and_what_boundaries_are_packed_for"
)
_NAMES: Final = "tests/unit/chunking/test_names.py"

MUTANTS: Final = (
    Mutant(
        "chunking/passes/precision.py",
        "if share > MAX_WEIGHT_LOSS:",
        "if share > 1:",
        (_REWRITES,),
    ),
    Mutant(
        "chunking/native/weights.py",
        "COARSE: Final = 2.0**-10",
        "COARSE: Final = 2.0",
        (_NATIVE,),
    ),
    Mutant(
        "chunking/native/weights.py",
        "return matrix if index == 0 else matrix.T",
        "return matrix.reshape(1, -1)",
        (_NATIVE,),
    ),
    Mutant(
        "chunking/native/weights.py",
        "kept = [axis for axis in range(weight.ndim) if axis not in summed]",
        "kept = []; summed = set(range(weight.ndim))",
        (_NATIVE,),
    ),
    Mutant(
        "chunking/native/writer.py",
        "if missing > max(0, room - KEPT_BITS):",
        "if missing > 14:",
        (f"{_OUTPUTS}::test_small_factors_are_not_zero_whatever_a_circuit_takes_apart",),
    ),
    Mutant(
        "chunking/hinted/rounding.py",
        "if divisor is None or blurred(divisor):",
        "if divisor is None:",
        (f"{_OUTPUTS}::test_hinted_circuit_whose_rows_do_not_hold_both_is_refused",),
    ),
    Mutant(
        "zkml_ray/verifying/policy.py",
        "if not hinted and policy.max_weight_loss < 1 and bits < arguments.input_scale:",
        "if False:",
        (f"{_OUTPUTS}::test_native_weights_coarser_than_inputs_are_refused",),
    ),
    Mutant(
        "zkml_ray/verifying/trust.py",
        "if taken_apart < 1 << limits.MIN_NATIVE_BITS:",
        "if taken_apart < 2:",
        (_TAKEN_APART,),
    ),
    Mutant(
        "zkml_ray/verifying/trust.py",
        "if taken_apart != commitment.decomp_base**commitment.decomp_legs:",
        "if False:",
        (_TAKEN_APART,),
    ),
    Mutant(
        "zkml_ray/verifying/extent.py",
        "    check_sizes(graph, limits.MAX_TENSOR_ELEMENTS)\n",
        "",
        (f"{_EXTENT}::test_shapes_that_only_normalising_tells_are_summed_up_as_well",),
    ),
    Mutant("chunking/unique.py", "if name in seen:", "if False:", (_NAMES,)),
    Mutant("chunking/unique.py", "if name.startswith(OURS):", "if False:", (_NAMES,)),
)
