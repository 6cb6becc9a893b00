"""`python -m fieldshift`: the same as the command `fieldshift`."""

import sys

from fieldshift.cli import main

sys.exit(main())
