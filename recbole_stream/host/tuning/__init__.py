"""A search for hyper-parameters under Ray Tune."""
