"""`python -m mbbench` is `mbbench`."""

from mbbench.cli import main

main()
