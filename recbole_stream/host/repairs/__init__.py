"""What RecBole 1.2.1 does wrong on today's packages, mended in the running process."""
