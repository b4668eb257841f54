"""What a measurement shows: executed precision, time by layer, requirements, the cell to choose."""
