"""The stages of a run, one module a verb. Only the coordinator knows their order."""
