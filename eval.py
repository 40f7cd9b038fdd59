"""Evaluate a trained agent: `python eval.py run=DIR [protocol=NAME] [key=value ...]`."""

import sys

from relic.console import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
