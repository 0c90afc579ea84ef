"""Secrets out of AWS: a parameter of Systems Manager, or an entry of Secrets Manager."""

from __future__ import annotations

from lifeboat.core.errors import PreconditionError, TransientError


def fetch(source: str, *, region: str) -> str:
    """The text of `ssm:NAME` or `secretsmanager:NAME`, by the credentials that boto3 finds here.

    On an instance those of its profile. Raises TransientError if AWS does not answer, and
    PreconditionError if it refuses or there is no such secret; neither quotes the text.
    """
    import boto3
    from botocore import exceptions
    from botocore.config import Config

    kind, _, name = source.partition(":")
    settings = Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 5})
    doing = f"Reading the secrets {source} in {region}"
    try:
        if kind == "ssm":
            client = boto3.client("ssm", region_name=region, config=settings)
            return client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
        if kind == "secretsmanager":
            client = boto3.client("secretsmanager", region_name=region, config=settings)
            return client.get_secret_value(SecretId=name)["SecretString"]
    except exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "?")
        raise PreconditionError(
            f"{doing}: AWS said {code}.",
            hint="Look at the name, and whether the instance profile may read it.",
        ) from error
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        raise TransientError(
            f"{doing}: AWS does not answer.", hint="Look at the network."
        ) from error
    except exceptions.BotoCoreError as error:
        raise PreconditionError(
            f"{doing}: {error}.", hint="Has this machine an instance profile?"
        ) from error
    raise PreconditionError(
        f"{doing}: that is no place of secrets.", hint="It is ssm:NAME or secretsmanager:NAME."
    )
