"""`onepiece bench NAME`: benchmarks that compare two things in one run, as a ratio."""

import argparse


def add_command(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Registers `bench`."""
