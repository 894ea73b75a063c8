"""Rewrite passes, one module each; the registry is in `zkml_ray.chunking.rewrite`.

A pass's module docstring states its precondition, its postcondition, its exactness and why.
What they share about ezkl's scales is in `zkml_ray.chunking.passes.scales`.
"""
