"""The old name of :mod:`recbole_stream.reporting`, for one release."""
