"""Settings: the only reader of lifeboat.yaml and of the environment.

`load_settings` resolves paths and reports all mistakes together, each with its line and its dotted
key. Secrets are looked up when they are needed and never held, so no repr, pickle or record of the
settings has one.
"""

from lifeboat.settings.alarms import Channel
from lifeboat.settings.environment import (
    CONFIG_VARIABLE,
    DEFAULT_NAME,
    SECRETS,
    TOOLS,
    default_config_path,
    find_compose,
    find_restic,
    forget_secrets,
    give_secrets,
    lasting_directory,
    optional_secret_of_environment,
    prefect_api_url,
    prepare_ephemeral_prefect,
    secret_of_environment,
    secrets_of_environment,
)
from lifeboat.settings.loading import load_settings
from lifeboat.settings.model import S3, Keep, Settings
from lifeboat.settings.people import Communication, People, Person
from lifeboat.settings.stack import (
    ComposeRunner,
    ComposeStackSettings,
    ProcessRunner,
    ProcessStackSettings,
)
from lifeboat.settings.yaml_model import read_model

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_NAME",
    "S3",
    "SECRETS",
    "TOOLS",
    "Channel",
    "Communication",
    "ComposeRunner",
    "ComposeStackSettings",
    "Keep",
    "People",
    "Person",
    "ProcessRunner",
    "ProcessStackSettings",
    "Settings",
    "default_config_path",
    "find_compose",
    "find_restic",
    "forget_secrets",
    "give_secrets",
    "lasting_directory",
    "load_settings",
    "optional_secret_of_environment",
    "prefect_api_url",
    "prepare_ephemeral_prefect",
    "read_model",
    "secret_of_environment",
    "secrets_of_environment",
]
