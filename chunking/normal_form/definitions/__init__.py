"""Operators that ezkl lacks, or computes otherwise, written with operators that it has.

    pointwise       functions of one element
    reductions      over axes
    normalisations  over channels, groups and roots of mean squares
    recurrent       RNN, GRU and LSTM of a known length
    resize          interpolation along axes
    table           operator -> definition

Definitions are those of ONNX's specification, in the forms of the common operator set. "Exact" is
said of real numbers: floats round otherwise.
"""
