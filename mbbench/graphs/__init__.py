"""The fp32 ONNX graph, which later stages take: written from PyTorch, read back, and its tensors."""
