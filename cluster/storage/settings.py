"""How to reach object storage."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class StorageSettings(BaseModel):
    """How to reach object storage. Keys are never settings: they come from the environment or a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)

    endpoint: str | None = None
    """S3 endpoint, e.g. "http://minio:9000". Default: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS itself."""
    region: str | None = None
    """Region. Default: AWS_REGION or AWS_DEFAULT_REGION, else us-east-1."""
    profile: str | None = None
    """Profile of the AWS credentials file. Default: the usual order (environment variables, instance role)."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 5
    """How often a request is tried before the storage counts as failed."""

    def resolved_endpoint(self) -> str | None:
        """The endpoint from the settings or the usual variables."""
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None

    def resolved_region(self) -> str:
        """The region from the settings or the usual variables."""
        return self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
