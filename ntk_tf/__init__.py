"""Networks and their linearizations at initialization: the empirical neural tangent kernel.

Importing this package does not import TensorFlow; its submodules do so where they need it.
"""

__version__ = "0.2.0"
