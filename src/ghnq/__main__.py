"""`python -m ghnq` is `ghnq`."""

import sys

from ghnq.cli import main

sys.exit(main())
