"""Output formats of reports: one module per format, each of pure functions that return text."""
