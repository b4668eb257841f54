"""Smaller and faster networks: module or graph in, module or graph out."""
