"""Experiments on stored runs: ``python -m experiments NAME RUN``; what they gave stands in LOG.md."""
