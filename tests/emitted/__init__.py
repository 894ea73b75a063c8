"""Emitted hinted circuits, read as an outsider reads them: their ONNX nodes and nothing else."""
