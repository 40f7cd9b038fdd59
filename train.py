"""Train an agent: `python train.py experiment=NAME [key=value ...]`.

`python train.py --cfg job experiment=NAME` shows the whole configuration, `--multirun` sweeps.
"""

import sys

from relic.console import train

if __name__ == "__main__":
    sys.exit(train())
