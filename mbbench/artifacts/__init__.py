"""From a cell to the file that a backend opens: prepare, quantize, export, convert."""
