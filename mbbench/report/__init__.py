"""Results as text: one module a format, each a pure `render(results) -> str`."""
