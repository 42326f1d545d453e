"""A causal language model as a recommender: a prompt, a retrieval over the catalogue, a reward, GRPO by TRL (Rec-R1)."""
