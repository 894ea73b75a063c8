"""Operators of ai.onnx.ml, which exporters of classical models write, in ONNX's own operators.

`ensemble` reads trees, `trees` writes them; `linear`, `vectors` and `features` have the other
operators, `scores` what classifiers and regressors share, `table` the pass.
"""
