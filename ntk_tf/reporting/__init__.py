"""Tables and figures out of run directories, without TensorFlow."""
