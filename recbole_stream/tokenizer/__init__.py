"""Embeddings -> semantic IDs (Eq. 5-8)."""
