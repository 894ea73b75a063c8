"""Hinted circuits: whole-number arithmetic whose results are given and checked, not computed.

A division, a maximum or a ReLU costs ezkl dozens of cells an element, because it decomposes every
operand into digits. Here the prover hands the results in as *hints*, and the circuit only checks
what makes them the right ones: one table lookup a digit, and one linear equation for several
elements at once, packed side by side into a field element (docs/adr/0017).

    numbers  digits, ranges, and how many values share a field element
    grid     where a tensor's elements come from: indices into values that are already fixed
    forms    linear maps that are not yet rounded
    recipe   computes the hints from a chunk's incoming values (prover only)
    circuit  emits the ONNX nodes of the checks
    blinding random digits that keep a proof from showing anything of the values
    lower    a chunk's float operators -> forms -> checks and recipe
    extract  the chunk model, commitments included
"""
