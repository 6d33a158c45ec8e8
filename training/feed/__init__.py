"""What a step reads: examples in their order, token batches, masks."""
