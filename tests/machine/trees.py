"""Trees of files like those of the kernel."""

from pathlib import Path


def tree(root: Path, **files: str) -> Path:
    """Write files under `root`; `__` in a name means a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
