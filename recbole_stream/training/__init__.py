"""One training loop and three objectives: pretraining, fine-tuning, GRPO."""
