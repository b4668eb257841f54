"""Measurement of one cell in a child process."""
