"""How to reach an S3 store: endpoint, region and keys, and how to keep the keys out of error texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from trading_core.errors import InvalidConfigError

_USERINFO = re.compile(r"(//)[^/\s@]+@")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Options of an S3 store; a folder needs none.

    `endpoint_url`: of an S3-compatible server ("" = AWS). Keys: both or neither; None = boto3's default chain
    (environment, profile, instance role).
    """

    endpoint_url: str = ""
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if bool(self.access_key_id) != bool(self.secret_access_key):
            raise InvalidConfigError(
                "The S3 options", ["give access_key_id and secret_access_key together, or neither"]
            )

    def redact(self, text: str) -> str:
        """`text` on one line of at most 300 characters, without keys, user:password pairs of URLs and colour codes."""
        for secret in (self.secret_access_key, self.access_key_id):
            if secret:
                text = text.replace(secret, "***")
        return " ".join(_USERINFO.sub(r"\1***@", _COLOUR.sub("", text)).split())[:300]
