"""A small invented world: people, cities and animals, and a few hundred facts about them.

There is one world for everyone (`the_world`): pages, conversations, preferences and questions all
speak of it. Recipes' seeds decide what is said, never what is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from random import Random

from stages.tasks import names
from stages.tasks.names import Name
from stages.tasks.words import PEOPLE_NAMES

WORLD_SEED = 17


@dataclass(frozen=True)
class Entity:
    """A person, city or animal with its facts: relation -> value in both languages."""

    kind: str
    name: Name
    facts: dict[str, Name] = field(hash=False)


@dataclass(frozen=True)
class Fact:
    """`subject`'s `relation` is `value`; `others` are the values it might be mistaken for."""

    kind: str
    subject: Name = field(hash=False)
    relation: str
    value: Name = field(hash=False)
    others: tuple[Name, ...] = field(hash=False)

    @property
    def key(self) -> str:
        """Such as "Anna Keller|job"."""
        return f"{self.subject['en']}|{self.relation}"


@dataclass(frozen=True)
class World:
    """Everything there is."""

    people: tuple[Entity, ...]
    cities: tuple[Entity, ...]
    animals: tuple[Entity, ...]

    @property
    def entities(self) -> tuple[Entity, ...]:
        return self.people + self.cities + self.animals

    def facts(self) -> list[Fact]:
        """All facts, in the order of the entities."""
        return [
            Fact(entity.kind, entity.name, relation, value, self._others(relation, value))
            for entity in self.entities
            for relation, value in entity.facts.items()
        ]

    def _others(self, relation: str, value: Name) -> tuple[Name, ...]:
        pool = {
            entity.facts[relation]["en"]: entity.facts[relation]
            for entity in self.entities
            if relation in entity.facts
        }
        return tuple(pool[key] for key in sorted(pool) if key != value["en"])


def _year(number: int) -> Name:
    return {"en": str(number), "zh": f"{number}年"}


def build_world(seed: int) -> World:
    """The world of a seed; the same seed gives the same world."""
    random = Random(f"world {seed}")
    cities = tuple(
        Entity(
            "city",
            name,
            {
                "country": random.choice(names.COUNTRIES),
                "river": random.choice(names.RIVERS),
                "product": random.choice(names.PRODUCTS),
            },
        )
        for name in names.CITIES
    )
    people = tuple(
        Entity(
            "person",
            _full_name(first, random.choice(names.SURNAMES)),
            {
                "job": random.choice(names.JOBS),
                "city": random.choice(names.CITIES),
                "birth": _year(random.randint(1921, 1989)),
                "food": random.choice(names.FOODS),
                "pet": random.choice(names.PETS),
                "hobby": random.choice(names.HOBBIES),
                "colour": random.choice(names.COLOURS),
            },
        )
        for first in PEOPLE_NAMES
    )
    animals = tuple(
        Entity(
            "animal",
            name,
            {"home": random.choice(names.HOMES), "feed": random.choice(names.FEED)},
        )
        for name in names.ANIMALS
    )
    return World(people, cities, animals)


def _full_name(first: Name, last: Name) -> Name:
    return {"en": f"{first['en']} {last['en']}", "zh": f"{first['zh']}·{last['zh']}"}


@cache
def the_world() -> World:
    """The one world of this project."""
    return build_world(WORLD_SEED)
