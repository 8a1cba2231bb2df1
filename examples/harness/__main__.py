"""`python -m examples.harness FILE.csv …`: print the table of each CSV that an experiment wrote."""

import argparse
from pathlib import Path

from examples.harness._results import read_csv, table

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.harness", description=__doc__)
    parser.add_argument("csv", type=Path, nargs="+")
    print("\n\n".join(table(read_csv(path)) for path in parser.parse_args().csv))
