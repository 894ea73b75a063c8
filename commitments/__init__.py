"""Commitments to boundary tensors: field encoding, packing, leaves, Merkle tree, openings."""
