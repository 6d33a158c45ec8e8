"""The retriever: what a step of contrastive training loads, computes and is validated by."""
