"""``python -m benchmarks`` and ``make bench``."""

import sys

from benchmarks.raw_to_star import main

sys.exit(main())
