"""Graph passes that `zkml_ray.chunking.normalize` puts in order.

Each is an onnx_ir pass: what it needs is checked by `requires`, what it promises by `ensures`.
"""
