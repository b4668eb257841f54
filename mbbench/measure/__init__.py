"""Measuring one cell in a child process of its own."""
