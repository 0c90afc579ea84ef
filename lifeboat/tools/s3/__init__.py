"""An S3 bucket over boto3: objects in `bucket`, their old versions in `versions`, and in
`protection` what keeps a thief with our key from destroying them.
"""

from lifeboat.tools.s3.bucket import Bucket, Object, Upload

__all__ = ["Bucket", "Object", "Upload"]
