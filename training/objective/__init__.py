"""The loss of a step: candidates across ranks, losses, temperature."""
