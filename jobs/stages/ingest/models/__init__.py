"""The base model, its tokens, and a second model, in workers."""
