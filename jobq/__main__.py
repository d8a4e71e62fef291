"""`python -m jobq` is the command `jobq`."""

from jobq.cli import main

main(prog_name="jobq")
