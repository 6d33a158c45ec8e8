"""Objects on a disk or on S3: one way to them, their digests, small records, and model folders."""
