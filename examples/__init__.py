"""Runnable examples, each with a real model and real input."""
