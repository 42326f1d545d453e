"""From a model to a ranking: trie, beam search, exact scores, rollouts."""
