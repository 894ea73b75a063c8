"""Mutants: one wrong line of the program each, and the tests that must notice it."""
