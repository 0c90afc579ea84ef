"""An S3 bucket over boto3: its objects in `bucket`, their old versions in `versions`.

`protection` looks at and sets what keeps a thief with our key from destroying them (`guards` one by
one, `lifecycle` and `policy` for what is shared with others, `locks` for single objects).
"""

from lifeboat.tools.s3.asking import Absent, Denied
from lifeboat.tools.s3.bucket import Bucket, Object, Upload
from lifeboat.tools.s3.guards import dangerous_rules, default_retention
from lifeboat.tools.s3.locks import lock, locked_until
from lifeboat.tools.s3.protection import SETTABLE, look, protect, versioning_of
from lifeboat.tools.s3.versions import (
    beginning_of,
    list_versions,
    make_current,
    origin_of,
    sha256_of,
)

__all__ = [
    "SETTABLE",
    "Absent",
    "Bucket",
    "Denied",
    "Object",
    "Upload",
    "beginning_of",
    "dangerous_rules",
    "default_retention",
    "list_versions",
    "lock",
    "locked_until",
    "look",
    "make_current",
    "origin_of",
    "protect",
    "sha256_of",
    "versioning_of",
]
