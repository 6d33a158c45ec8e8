"""DeepSpeed around an encoder: configuration, micro-batch size, learning rate, checkpoints."""
