"""Checks a storage's URI: it is written into logs, records and tables, so it must not contain a secret."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping

_AZURE = (
    "account_name",
    "blob_storage_authority",
    "client_id",
    "credential_kind",
    "dfs_storage_authority",
    "enable_tls",
)
#: The allowed words in a URI's query, by the URI's scheme: options of pyarrow's that hold no secret.
QUERIES: Mapping[str, tuple[str, ...]] = {
    "s3": (
        "allow_bucket_creation",
        "allow_bucket_deletion",
        "allow_delayed_open",
        "check_directory_existence_before_creation",
        "endpoint_override",
        "force_virtual_addressing",
        "region",
        "scheme",
        "tls_ca_file_path",
        "tls_verify_certificates",
    ),
    "gs": ("anonymous", "endpoint_override", "retry_limit_seconds", "scheme"),
    "gcs": ("anonymous", "endpoint_override", "retry_limit_seconds", "scheme"),
    "abfs": _AZURE,
    "abfss": _AZURE,
    "hdfs": ("buffer_size", "default_block_size", "replication", "user"),
}
#: Azure's usual form, in which the name before the host is the container's.
_CONTAINER = re.compile(r"abfss?://[a-z0-9$][a-z0-9-]*@[a-z0-9]+\.(dfs|blob)\.core\.[a-z.]+(/|\?|$)")


class UriError(ValueError):
    """A URI that may hold a secret; the message repeats none of it."""


def check(uri: str) -> None:
    """Raise UriError where a storage's URI has a user, a password, or a query that is not known to be harmless."""
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,15}(?=://)", uri)
    shown = f"{scheme[0]}://..." if scheme else "the storage"
    where = (
        "Give credentials by the environment instead, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by the "
        "machine's role"
    )
    plain = _decoded(uri)
    address, _, query = plain.partition("?")
    # A password may contain a slash, so an @ is refused anywhere in the address; a path does not need one.
    if "@" in address and not _CONTAINER.match(address):
        raise UriError(
            f"storage {shown} was given with a user or a password in its URI, which is written down. {where}"
        )
    known = QUERIES.get((scheme[0] if scheme else "").lower(), ())
    names = [word.partition("=")[0] for word in re.split("[&;?]", query) if word]
    if any(name not in known for name in names) or "#" in query:
        allowed = f"Known there: {', '.join(known)}" if known else "None is known for this kind of storage"
        raise UriError(
            f"storage {shown} was given with an unknown word in the query of its URI, which is written down and may be "
            f"a secret. {allowed}. {where}"
        )
    if "@" in query:
        raise UriError(
            f"storage {shown} was given with a user or a password in its URI's query, which is written down. {where}"
        )


def _decoded(uri: str) -> str:
    """The URI decoded until nothing is percent-encoded, so that no encoding hides an @ or the name of a word."""
    while (plain := urllib.parse.unquote(uri)) != uri:
        uri = plain
    return uri
