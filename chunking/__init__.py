"""Turning an ONNX model into chunks: loading, normalising, cutting, extracting.

No module here knows of keys, proofs, Ray or stores.
"""
