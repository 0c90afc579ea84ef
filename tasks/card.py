"""The bootstrap card: what a blank machine needs, gathered from the settings and the bucket."""

from __future__ import annotations

from pathlib import Path

import lifeboat
from lifeboat.core.card import Card, CardPoint
from lifeboat.core.errors import PreconditionError, RecoveryError
from lifeboat.core.points import Asset, RecoveryPoint, Tier
from lifeboat.core.secrecy import fingerprint, secrets_in, without_credentials
from lifeboat.settings import SECRETS, Settings
from lifeboat.tools import git, postgres
from tasks import catalogue, clock

_ALWAYS = ("LIFEBOAT_VAULT_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# Where `secrets_file` comes back with the configuration, it has these.
_IF_NOT_IN_THE_VAULT = ("LIFEBOAT_DATABASE_PASSWORD", "LIFEBOAT_CHECK_PASSWORD", "REDIS_PASSWORD")


def make_card(settings: Settings) -> Card:
    """Gather the card. A bucket that can't be reached is told on it: a card is better than none.

    Raises SettingsError if the vault's password is not set here, and PreconditionError if one of
    our secrets stands where it would be printed.
    """
    told, s3 = settings.card, settings.vault.s3
    trouble = ""
    newest: dict[Asset, RecoveryPoint] = {}
    try:
        newest = _newest_in_bucket(settings)
    except RecoveryError as error:
        trouble = str(error)
    origin = told.lifeboat_repository or git.origin_of(_lifeboat_directory()) or ""
    card = Card(
        platform=settings.platform,
        environment=settings.environment,
        printed_at=clock.now(),
        bucket=s3.bucket,
        endpoint=without_credentials(s3.endpoint or ""),
        region=s3.region,
        prefix=s3.prefix,
        into=str(settings.directory),
        programs=_programs(settings, newest.get(Asset.DATABASE)),
        lifeboat_repository=without_credentials(origin),
        lifeboat_version=lifeboat.__version__,
        secrets=_secrets(settings),
        fingerprint=fingerprint(
            settings.secret("LIFEBOAT_VAULT_PASSWORD"), platform=settings.platform
        ),
        points=tuple(
            CardPoint(asset=point.asset, point=point.id, verified_at=point.verified_in(Tier.S3))
            for point in newest.values()
        ),
        points_trouble=trouble,
        needed_bytes=sum(point.bytes for point in newest.values()) or None,
        contacts=told.contacts,
    )
    ours = (secret for secret in settings.known_secrets() if secret.name in SECRETS)
    if shown := secrets_in(card.model_dump_json().encode(), ours):
        raise PreconditionError(
            f"Making the card: it would show {' and '.join(shown)}.",
            hint="Look for it in the sections `card` and `vault` of lifeboat.yaml.",
        )
    return card


def _newest_in_bucket(settings: Settings) -> dict[Asset, RecoveryPoint]:
    """The point of each asset with which a lost server would come back now."""
    points = catalogue.list_points(settings, tiers=(Tier.S3,))
    found = {}
    for asset in Asset:
        trusted = (point for point in points if point.asset is asset and not point.suspicion)
        if point := next(trusted, None):
            found[asset] = point
    return found


def _programs(settings: Settings, base: RecoveryPoint | None) -> tuple[str, ...]:
    runner = {"compose": "Docker with its compose plugin", "process": "supervisor"}
    if settings.database.programs == "image":
        postgresql: tuple[str, ...] = ()  # a recovery takes its programs out of the image
    else:
        programs = settings.database.bin_directory
        where = f" in {programs}" if programs else ""
        major = _major(settings, base)
        postgresql = (f"PostgreSQL {major}{where} (its programs; no server need run)",)
    return (
        *postgresql,
        runner[settings.stack.kind],
        "git, make, Python 3.11 or newer",
        "restic 0.17 or newer, which `make setup` finds or fetches",
    )


def _major(settings: Settings, base: RecoveryPoint | None) -> str:
    """Of the newest base copy, whose server it has to be; else of the programs on this host."""
    try:
        facts = catalogue.read_facts(settings, base, Tier.S3) if base else None
        if facts and facts.database:
            return facts.database.server_version.partition(".")[0]
        return str(postgres.tools_version(settings.database.bin_directory))
    except RecoveryError:
        return "(the version of the lost server)"


def _secrets(settings: Settings) -> tuple[str, ...]:
    file = settings.secrets_file
    kept = file is not None and any(file.is_relative_to(path) for path in settings.config.paths)
    if kept:
        return _ALWAYS
    others = (name for name in _IF_NOT_IN_THE_VAULT if settings.optional_secret(name))
    return (*_ALWAYS, *others)


def _lifeboat_directory() -> Path:
    return Path(lifeboat.__file__).absolute().parents[1]
