"""Item text -> embeddings (Eq. 4)."""
