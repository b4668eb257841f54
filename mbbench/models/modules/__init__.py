"""The families as PyTorch modules, whose tables are in `mbbench.models`; only `mbbench.models.build` imports them."""
