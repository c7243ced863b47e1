"""What `--experiment` names; each module composes the floors below and has a `run`."""
