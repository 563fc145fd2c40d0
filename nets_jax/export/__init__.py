"""Tickets and trained networks in other forms: of PyTorch, of ONNX, sparse, as files for others."""
