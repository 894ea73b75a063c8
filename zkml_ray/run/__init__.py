"""A run from its request to its manifest: the order of the stages, what is stored when, on Ray."""
