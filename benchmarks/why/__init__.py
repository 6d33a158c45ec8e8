"""The experiments and pictures of docs/why-hard-negatives.md."""
