"""Print from where pip installs, as options of uv: uv does not read pip's settings. Prints nothing if pip has none."""

import ast
import shlex
import subprocess
import sys

_OPTIONS = ("index-url", "extra-index-url", "find-links")
_SECTIONS = ("global", "install", ":env:")  # the last one prevails


def options(listing: str) -> list[str]:
    """Return the options of uv for `listing`, the output of `pip config list`."""
    settings = dict(line.split("=", 1) for line in listing.splitlines())
    arguments = []
    for option in _OPTIONS:
        values = [settings[key] for section in _SECTIONS if (key := f"{section}.{option}") in settings]
        arguments += [f"--{option}={source}" for source in (ast.literal_eval(values[-1]).split() if values else ())]
    no_index = [settings[key] for section in _SECTIONS if (key := f"{section}.no-index") in settings]
    if no_index and ast.literal_eval(no_index[-1]).lower() in ("1", "true", "yes", "on"):
        arguments.append("--no-index")
    # pip takes the best version of all sources, uv only those of the first source that has the package.
    return [*arguments, "--index-strategy=unsafe-best-match"] if arguments else []


if __name__ == "__main__":
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    print(shlex.join(options(pip.stdout)))
