"""Facts in rows: architectures, datasets, the paper's hyperparameters. Imports nothing else."""
