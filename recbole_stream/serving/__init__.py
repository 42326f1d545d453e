"""A trained model in a folder of its own, and what is done with it: recommend, explain, serve, grow."""
