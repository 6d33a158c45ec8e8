"""What a file system raises, told as one of our errors: what could not be done, where, and what to check."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster.errors import ArtifactError, ClusterError, ConfigError, StorageError, one_paragraph

if TYPE_CHECKING:
    from cluster.storage.settings import StorageSettings

NO_ADDRESS = (errno.ELOOP, errno.ENAMETOOLONG)
"""What no second try mends: symbolic links that go in a circle, a name that is too long."""
REFUSED = {"400", "401", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException", "Unauthorized"}
"""Answers to keys that have expired or are wrong, besides those that s3fs takes for a PermissionError. 400: of a HEAD."""
NO_KEYS = {"NoCredentialsError", "ProfileNotFound", "PartialCredentialsError"}
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.profile"


@contextmanager
def told(what: str, url: str, settings: StorageSettings) -> Iterator[None]:
    """Turn whatever the block raises into one of our errors.

    Args:
        what: the verb of the message, "read" or "write" for example.

    Raises:
        ArtifactError: there is no such object. ConfigError: no such bucket, no keys, or a folder where a file should be.
        StorageError: S3 gave no good answer. ClusterError: access denied, or anything else.
    """
    remote = url.startswith("s3://")
    try:
        yield
    except FileNotFoundError as error:
        if code(error) == "NoSuchBucket":
            raise ConfigError(
                f"cannot {what} {url}: the bucket does not exist; create it first, or fix `output` or the data address"
            ) from error
        raise ArtifactError(f"cannot {what} {url}: there is no such object") from error
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise ConfigError(
            f"cannot {what} {url}: there is a folder where a file should be, or a file where a folder "
            f"should be ({one_paragraph(str(error))}); fix the address"
        ) from error
    except Exception as error:  # botocore's connection errors share no base class with OSError
        if isinstance(error, PermissionError) or (remote and code(error) in REFUSED):
            where = (
                f"whether the keys have expired ({KEYS}), and what they may do here"
                if remote
                else "the permissions of the folder"
            )
            raise ClusterError(
                f"cannot {what} {url}: access denied ({one_paragraph(str(error))}); check {where}, then run the same command "
                f"again: it resumes"
            ) from error
        if getattr(error, "errno", None) in NO_ADDRESS:
            raise ConfigError(f"cannot {what} {url} ({one_paragraph(str(error))}); fix the address, or the link") from error
        if type(error).__name__ in NO_KEYS:
            raise ConfigError(
                f"cannot {what} {url}: no usable credentials ({one_paragraph(str(error))}); set {KEYS}, or run where an instance "
                f"role gives them"
            ) from error
        raise (StorageError if remote else ClusterError)(_explain(what, url, settings, error)) from error


def code(error: BaseException) -> str:
    """The code of the S3 answer behind `error`, e.g. "NoSuchBucket"; empty where there is none."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _explain(what: str, url: str, settings: StorageSettings, error: Exception) -> str:
    text, kind = one_paragraph(str(error)), type(error).__name__
    if url.startswith("s3://"):
        endpoint = settings.resolved_endpoint() or "AWS S3"
        return (
            f"cannot {what} {url} at {endpoint} after {settings.attempts} attempts ({kind}: {text}); check "
            f"storage.endpoint, the network and the keys, then run the same command again: it resumes"
        )
    return f"cannot {what} {url} ({kind}: {text}); check the disk and the permissions, then run again: it resumes"
