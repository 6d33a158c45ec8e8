"""The stages: stage_0_ingest … stage_5_evaluate, each one function from commits to a commit."""
