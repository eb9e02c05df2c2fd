"""The world: the same for everyone, a few hundred facts, one truth, named in both languages."""

from stages.tasks.world import build_world, the_world


def test_a_few_hundred_facts_without_contradiction():
    facts = the_world().facts()
    assert 300 <= len(facts) <= 600
    assert len({fact.key for fact in facts}) == len(facts)
    for fact in facts:
        assert fact.value not in fact.others and len(fact.others) >= 3
        assert fact.subject["zh"] and fact.value["zh"]


def test_the_seed_decides():
    assert build_world(3) == build_world(3)
    assert [f.value for f in build_world(3).facts()] != [f.value for f in build_world(4).facts()]


def test_people_live_in_the_worlds_cities_and_names_are_unique():
    world = the_world()
    cities = {city.name["en"] for city in world.cities}
    assert all(person.facts["city"]["en"] in cities for person in world.people)
    for language in ("en", "zh"):
        assert len({entity.name[language] for entity in world.entities}) == len(world.entities)
