"""Which of the plan's four scenarios fits what is seen of a platform, with the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, computed_field

from lifeboat.core.ladder import DatabaseAssessment


class Scenario(StrEnum):
    """The plan's own, and what needs no recovery but a start."""

    SERVER = "server"
    DATABASE = "database"
    FILES = "files"
    MODELS = "models"
    STOPPED = "services stopped"


class Tree(BaseModel):
    """What was seen of the files, or of the models, against their newest trusted point."""

    model_config = ConfigDict(frozen=True)

    there: bool = True  # at least one of its directories exists and holds something
    damaged: int = 0
    first: str = ""
    unseen: str = ""  # why it could not be compared


class Symptoms(BaseModel):
    """What was seen. `unseen` parts are told, and never taken for good."""

    model_config = ConfigDict(frozen=True)

    platform: str
    database: DatabaseAssessment | None = None
    database_unseen: str = ""
    files: Tree
    models: Tree
    stopped: tuple[str, ...] = ()  # critical services that do not run
    services_unseen: str = ""


class Cure(BaseModel):
    """A scenario that fits, why, and the command that cures it."""

    model_config = ConfigDict(frozen=True)

    scenario: Scenario
    evidence: str
    command: str


class Diagnosis(BaseModel):
    """What to do, in this order; nothing if nothing is wrong."""

    model_config = ConfigDict(frozen=True)

    platform: str
    cures: tuple[Cure, ...]
    unseen: tuple[str, ...] = ()

    @computed_field
    @property
    def good(self) -> bool:
        """Whether everything was seen and nothing is wrong."""
        return not self.cures and not self.unseen

    def in_words(self) -> str:
        """What to do and why, in lines for a terminal, and for the end of a run in the UI."""
        cures = (
            f"{number}. {cure.scenario}: {cure.evidence}\n   -> {cure.command}"
            for number, cure in enumerate(self.cures, start=1)
        )
        unseen = (f"?  not seen: {told}" for told in self.unseen)
        nothing = (f"{self.platform}: nothing is wrong that can be seen.",) if self.good else ()
        return "\n".join((*cures, *unseen, *nothing))


def diagnose(symptoms: Symptoms) -> Diagnosis:
    """Say which scenarios fit, in the order in which they have to be cured.

    A server whose database, files and models are all gone is lost as a whole. The database comes
    before the files, whose SHA-256 it knows. Services that do not run are told where no lost
    database or model explains it, and before files that differ from their last backup: users change
    files all the time.
    """
    unseen = tuple(
        f"{what}: {why}"
        for what, why in (
            ("services", symptoms.services_unseen),
            ("database", symptoms.database_unseen),
            ("files", symptoms.files.unseen),
            ("models", symptoms.models.unseen),
        )
        if why
    )
    if _everything_is_gone(symptoms):
        lost = Cure(
            scenario=Scenario.SERVER,
            evidence="of the database, the files and the models nothing is there",
            command="lifeboat recover server --bucket BUCKET --into DIRECTORY",
        )
        return Diagnosis(platform=symptoms.platform, cures=(lost,), unseen=unseen)
    cures = tuple(_of_data(symptoms))
    if symptoms.stopped and all(cure.scenario is Scenario.FILES for cure in cures):
        no_damage = "" if cures else ", and no data is damaged"
        stopped = Cure(
            scenario=Scenario.STOPPED,
            evidence=f"{', '.join(symptoms.stopped)} not running{no_damage}",
            command=f"start {', '.join(symptoms.stopped)}, then: lifeboat verify",
        )
        cures = (stopped, *cures)
    return Diagnosis(platform=symptoms.platform, cures=cures, unseen=unseen)


def _everything_is_gone(symptoms: Symptoms) -> bool:
    database = symptoms.database
    return (
        database is not None
        and not database.answers
        and bool(database.cluster_problems)
        and not symptoms.files.there
        and not symptoms.models.there
    )


def _of_data(symptoms: Symptoms) -> Iterator[Cure]:
    database = symptoms.database
    if database is not None and not database.healthy:
        yield Cure(
            scenario=Scenario.DATABASE,
            evidence=f"{database.in_words()} (its service is {database.service_state})",
            command="lifeboat recover database",
        )
    for scenario, tree in ((Scenario.FILES, symptoms.files), (Scenario.MODELS, symptoms.models)):
        if tree.damaged:
            yield Cure(
                scenario=scenario,
                evidence=f"{tree.damaged} missing or damaged, first {tree.first!r}",
                command=f"lifeboat recover {scenario}",
            )
