"""Run `python -m mbbench` as `mbbench`."""

from mbbench.cli.app import main

main()
