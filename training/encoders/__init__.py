"""The models: how each kind reads features, lies in a folder, and is prepared for a run."""
