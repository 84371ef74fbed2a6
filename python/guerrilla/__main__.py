"""`python -m guerrilla` is `guerrillad`."""

import sys

from guerrilla.cli import main

sys.exit(main())
