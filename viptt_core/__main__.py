"""`python -m viptt_core`: the `viptt` command."""

import sys

from viptt_core.cli import main

sys.exit(main())
