"""Ray Train workers that train one round after another: each as a new worker would, and gone after a failure."""
