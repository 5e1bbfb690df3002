"""A tiny GPT, trained under a fixed budget and scored in bits per byte: the first task."""
