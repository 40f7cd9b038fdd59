"""Evaluate a trained agent: `python eval.py run=DIR [protocol=NAME] [key=value ...]`."""

import sys

from relic.evaluation.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
