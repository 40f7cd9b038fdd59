"""Start the doctor."""

import sys

from relic.doctor.cli import main

if __name__ == "__main__":
    sys.exit(main())
