"""A run: models and seeds, trained and ranked one after another into one table, resumable, on one machine or a cluster."""
