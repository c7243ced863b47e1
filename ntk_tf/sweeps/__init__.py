"""Many runs behind one command: a grid of settings, one process each, without TensorFlow."""
