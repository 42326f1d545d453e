"""From raw files to atomic files, and from histories to batches."""
