"""`python -m mbbench` is `mbbench`."""

from mbbench.cli.app import main

main()
