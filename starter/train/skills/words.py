"""Skills over words: spelling, repeating, reversing, upper case, and the capitals of thirty countries."""

import random

import words as lists
from skills.task import Task, ask


def _spelled(word: str) -> str:
    return "-".join(word)


def spell(rng: random.Random) -> Task:
    """Spell one or two words, letters joined by hyphens."""
    first = lists.word(rng, 0.3)
    if rng.random() < 0.4:
        second = lists.word(rng, 0.3)
        question = rng.choice((f"Spell {first} and {second}.", f"Spell the words {first} and {second}."))
        return ask(question, f"{_spelled(first)}, {_spelled(second)}")
    question = rng.choice((f"Spell {first}.", f"Spell the word {first}.", f"How do you spell {first}?", f"Spell: {first}"))
    return ask(question, _spelled(first))


def repeat(rng: random.Random) -> Task:
    """Say the given words again."""
    text = " ".join(lists.words(rng, 1, 8, 0.15))
    return ask(rng.choice((f"Say: {text}", f"Repeat after me: {text}", f"Repeat: {text}", f"Echo: {text}")), text)


def reverse(rng: random.Random) -> Task:
    """Give two to six words in reverse order."""
    given = lists.words(rng, 2, 6, 0.1)
    text = " ".join(given)
    question = rng.choice((f"Reverse the words: {text}", f"Reverse: {text}", f"Reverse the order of these words: {text}"))
    return ask(question, " ".join(reversed(given)))


def uppercase(rng: random.Random) -> Task:
    """Write one to four words in capital letters."""
    text = " ".join(lists.words(rng, 1, 4, 0.15))
    question = rng.choice((f"Uppercase: {text}", f"Write in capital letters: {text}", f"Convert to upper case: {text}"))
    return ask(question, text.upper())


def capital(rng: random.Random) -> Task:
    """Name the capital of one country, or of two."""
    first, second = rng.sample(list(lists.CAPITALS), 2)
    known = lists.CAPITALS
    if rng.random() < 0.5:
        question = rng.choice((f"What are the capitals of {first} and {second}?", f"Capitals of {first} and {second}?"))
        return ask(question, f"The capital of {first} is {known[first]} and the capital of {second} is {known[second]}.")
    question = rng.choice((f"What is the capital of {first}?", f"Capital of {first}?", f"Name the capital of {first}."))
    return ask(question, f"The capital of {first} is {known[first]}.")
