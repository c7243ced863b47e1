"""`python -m ntk_tf`: the same as `python -m ntk_tf.main`."""

import sys

from ntk_tf.main import main

if __name__ == "__main__":
    sys.exit(main())
