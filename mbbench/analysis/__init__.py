"""Conclusions from measurements: executed precision, time per layer, requirements, the cell to choose."""
