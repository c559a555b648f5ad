"""`python -m gan_nst` is `gan-nst`."""

import sys

from gan_nst.cli import main

if __name__ == "__main__":
    sys.exit(main())
