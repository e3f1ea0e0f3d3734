"""`python -m jobs` is `user-analytics`."""

import sys

from jobs.cli import main

sys.exit(main())
