"""PyTorch as two mbbench backends: `torch` (torch.compile) and `torch-eager`."""
