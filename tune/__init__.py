"""Studies over recipes on Ray Tune: hyperparameters and datasets are axes alike."""
