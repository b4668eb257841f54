"""The fp32 ONNX graph that later stages start from: written from PyTorch, read back, and its tensors."""
