"""Opening S3: time limits, and which errors are tried again (botocore's standard retries)."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any

from cluster.storage.settings import StorageSettings


def open_s3(settings: StorageSettings) -> Any:
    """A file system on S3.

    "standard" retries what botocore calls transient: time-outs, connection errors, throttling and 500, 502, 503, 504
    (https://boto3.amazonaws.com/v1/documentation/api/latest/guide/retries.html).
    """
    import s3fs
    from aiobotocore.session import AioSession

    opened = s3fs.S3FileSystem(
        endpoint_url=settings.resolved_endpoint(),
        profile=settings.profile,
        client_kwargs={"region_name": settings.resolved_region()},
        config_kwargs={
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"max_attempts": settings.attempts, "mode": "standard"},
        },
        use_listings_cache=False,  # another process's new object must be seen (fsspec/s3fs#424)
        skip_instance_cache=True,
    )
    opened.session = AioSession(profile=settings.profile)  # no argument, which would be pickled with the file system
    opened.session.register_component("data_loader", _descriptions())
    opened.retries = 2  # botocore's attempts are the ones that count; s3fs would repeat all of them 5 times
    return opened


@functools.cache
def _descriptions() -> Any:
    """AWS's descriptions of its services. Each session reads them anew unless told otherwise: 0.1 s of every file system."""
    from botocore.session import get_session

    return get_session().get_component("data_loader")


DAMAGED_READS = 3
"""How often an object is read whose bytes do not have the checksum that S3 sends with them: botocore does not try again."""


ONE_REQUEST = 8 * 2**20
"""An object of at most so many bytes is fetched by one request; s3fs asks for the size of others, and fetches them in pieces."""


def read_s3(fs: Any, key: str, size: int | None) -> bytes:
    """The whole object, read again where the network has damaged it.

    Args:
        size: of the object, where it is known.
    """
    options = {"max_concurrency": 1} if size is not None and size <= ONE_REQUEST else {}
    from botocore.exceptions import FlexibleChecksumError

    for _ in range(DAMAGED_READS - 1):
        with suppress(FlexibleChecksumError):
            return bytes(fs.cat_file(key, **options))
    return bytes(fs.cat_file(key, **options))
