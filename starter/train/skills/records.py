"""Extracting JSON from a sentence."""

import json
import random

import words as lists
from skills.task import Task, ask


def _person(rng: random.Random) -> tuple[str, dict]:
    name, age, city = rng.choice(lists.PEOPLE), rng.randint(1, 99), rng.choice(lists.CITIES)
    sentence = rng.choice((
        f"{name} is {age} years old and lives in {city}.", f"{name}, aged {age}, is from {city}.",
        f"{name} ({age}) lives in {city}.", f"My name is {name}, I am {age} and I live in {city}.",
    ))
    return sentence, {"name": name, "age": age, "city": city}


def _order(rng: random.Random) -> tuple[str, dict]:
    customer, item, quantity = rng.choice(lists.PEOPLE), lists.word(rng, 0.1), rng.randint(2, 99)
    sentence = rng.choice((
        f"{customer} ordered {quantity} x {item}.", f"{quantity} x {item} for {customer}.",
        f"{customer} wants to buy {quantity} x {item}.",
    ))
    return sentence, {"customer": customer, "item": item, "quantity": quantity}


def _meeting(rng: random.Random) -> tuple[str, dict]:
    person, day, time = rng.choice(lists.PEOPLE), rng.choice(lists.DAYS), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    sentence = rng.choice((
        f"Meet {person} on {day} at {time}.", f"Meeting with {person}, {day} {time}.",
        f"On {day} at {time} I see {person}.",
    ))
    return sentence, {"person": person, "day": day, "time": time}


def extract(rng: random.Random) -> Task:
    """Write a person, an order or a meeting as one JSON object."""
    sentence, record = rng.choice((_person, _person, _order, _meeting))(rng)
    question = rng.choice(("Extract JSON: ", "Extract JSON from: ", "Convert to JSON: ")) + sentence
    return ask(question, json.dumps(record))
