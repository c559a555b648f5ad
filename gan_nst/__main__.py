"""`python -m gan_nst` is `gan-nst`."""

import contextlib
import os
import sys

from gan_nst.cli import main

if __name__ == "__main__":
    code = main()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    # One of torchrun's processes, which keeps its group to the end: see gan_nst.training.distributed.session.
    with contextlib.suppress(OSError, ValueError):  # a reader that has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
