"""Documents that cross a trust boundary: parsed once, at the edge, into frozen models."""
