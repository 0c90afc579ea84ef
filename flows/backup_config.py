from __future__ import annotations

from lifeboat.core.points import Asset, Facts
from lifeboat.core.requests import Backup
from lifeboat.settings import load_settings
from tasks import backup, certificates, public_config, trees
from tasks.orchestration import procedure
from tasks.people import disaster_plan, reviews


@procedure("backup-config")
def backup_config(request: Backup = Backup()) -> Facts:
    """Back up the configuration: settings, environment files, certificates, service configuration.

    1. Stand aside if a recovery is running, or another backup of config.
    2. Compare what is there with the newest point, by path, mode and content.
    3. If it has changed: snapshot it into the local vault and S3 at the same time. If not, and one
       of the two has not got that point: into that one, under the point's name.
    4. Look whether it departs sharply from those before it: a suspicious one is kept and told.
    5. Warn of certificates that end soon.
    6. Commit the part without secrets to the git repository of `config.public`, and push it.
    7. Keep the disaster recovery plan of the platform, as it is now, in both tiers.

    What it changes: the vault gains one recovery point, the repository one commit; nothing is
    removed. Unchanged, neither: the facts are those of the point that holds it already.
    If it fails: run it again; a backup that fails half way leaves no recovery point in that tier.
    What git could not take is published by the next run.
    Evidence: the run's record, and `lifeboat points`.
    """
    settings = load_settings(request.config or None)
    with backup.backup_run(settings, Asset.CONFIG):
        facts = None
        if request.only_if_changed:
            facts = trees.find_unchanged(settings, Asset.CONFIG)
        if facts is None:
            facts = trees.gather_facts(settings, Asset.CONFIG)
            trees.store_directories(settings, facts)
        certificates.tell_expiring(settings, facts)
        public_config.publish(settings, point=facts.point)
        reviews.note_beginning(settings)
        disaster_plan.publish(settings)
    return facts
