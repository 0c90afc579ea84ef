"""Which scenario fits what is seen, and in which order."""

from __future__ import annotations

from lifeboat.core.diagnosis import Scenario, Symptoms, Tree, diagnose
from lifeboat.core.health import what_to_propose
from lifeboat.core.ladder import DatabaseAssessment

WELL = DatabaseAssessment(service_state="running", answers=True, cluster_problems=())
DOWN = DatabaseAssessment(service_state="stopped", answers=False, cluster_problems=())
GONE = DatabaseAssessment(service_state="failed", answers=False, cluster_problems=("no PG",))
WHOLE, DAMAGED = Tree(), Tree(damaged=3, first="a.dxf")
EMPTY = Tree(there=False, damaged=9, first="a.dxf")


def seen(database=WELL, files=WHOLE, models=WHOLE, **more) -> Symptoms:
    return Symptoms(platform="cad", database=database, files=files, models=models, **more)


def scenarios(symptoms: Symptoms) -> list[Scenario]:
    return [cure.scenario for cure in diagnose(symptoms).cures]


def test_nothing_is_wrong() -> None:
    assert diagnose(seen()).good


def test_each_scenario_is_told_from_the_others() -> None:
    assert scenarios(seen(database=DOWN)) == [Scenario.DATABASE]
    assert scenarios(seen(files=DAMAGED)) == [Scenario.FILES]
    assert scenarios(seen(models=DAMAGED)) == [Scenario.MODELS]
    assert scenarios(seen(GONE, EMPTY, EMPTY)) == [Scenario.SERVER]


def test_a_lost_database_beside_empty_files_is_no_lost_server() -> None:
    assert scenarios(seen(GONE, EMPTY)) == [Scenario.DATABASE, Scenario.FILES]


def test_the_database_comes_first_for_it_knows_the_files() -> None:
    found = scenarios(seen(DOWN, DAMAGED, DAMAGED, stopped=("backend",)))
    assert found == [Scenario.DATABASE, Scenario.FILES, Scenario.MODELS]


def test_services_that_do_not_run_are_told_where_nothing_else_explains_it() -> None:
    [cure] = diagnose(seen(stopped=("backend", "nginx"))).cures
    assert cure.scenario is Scenario.STOPPED
    assert "backend, nginx" in cure.evidence


def test_a_stopped_service_is_no_reason_to_set_files_back() -> None:
    found = diagnose(seen(files=DAMAGED, stopped=("backend",)))
    assert [cure.scenario for cure in found.cures] == [Scenario.STOPPED, Scenario.FILES]
    assert what_to_propose(found) is None
    lost = diagnose(seen(files=DAMAGED, models=DAMAGED, stopped=("ai-service",)))
    assert [cure.scenario for cure in lost.cures] == [Scenario.FILES, Scenario.MODELS]


def test_what_could_not_be_seen_is_never_good() -> None:
    for unseen in (
        seen(files=Tree(unseen="no recovery point")),
        seen(database=None, database_unseen="no engine"),
        seen(services_unseen="no supervisor"),
    ):
        found = diagnose(unseen)
        assert not found.good
        assert not found.cures
        assert len(found.unseen) == 1
