"""``python -m scm_media``: the same as the command ``scm-media``."""

import sys

from scm_media.cli import main

if __name__ == "__main__":
    sys.exit(main())
