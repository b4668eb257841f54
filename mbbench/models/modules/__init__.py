"""The families as PyTorch modules, whose tables are in `mbbench.models`; `mbbench.models.build` imports them."""
