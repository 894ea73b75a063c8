"""Circuits of chunks: derived from a plan, compiled and keyed by ezkl, cached by content."""
