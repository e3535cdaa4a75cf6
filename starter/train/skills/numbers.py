"""Skills over numbers: adding with written steps, comparing, counting, sorting."""

import random

from skills.task import Task, ask


def _number(rng: random.Random) -> int:
    """A number of one to three digits, short ones as likely as long ones."""
    return rng.randrange(10 ** rng.choice((1, 2, 2, 3)))


def addition_steps(a: int, b: int) -> str:
    """The worked answer, e.g. 47 and 85: `7+5=12, 4+8+1=13: 132`."""
    width = max(len(str(a)), len(str(b)))
    carry, steps = 0, []
    for left, right in zip(reversed(f"{a:0{width}}"), reversed(f"{b:0{width}}")):
        total = int(left) + int(right) + carry
        steps.append(f"{left}+{right}{'+1' if carry else ''}={total}")
        carry = total // 10
    return f"{', '.join(steps)}: {a + b}"


def add(rng: random.Random) -> Task:
    """Add two numbers of up to three digits."""
    a, b = _number(rng), _number(rng)
    question = rng.choice((f"What is {a} + {b}?", f"What is {a} plus {b}?", f"{a} + {b} =", f"Add {a} and {b}.", f"{a}+{b}"))
    return ask(question, addition_steps(a, b))


def compare(rng: random.Random) -> Task:
    """Say which of two different numbers is larger or smaller."""
    a = _number(rng)
    b = _number(rng) if rng.random() < 0.5 else max(0, a + rng.randint(-20, 20))
    while b == a:
        b = _number(rng)
    word, pick = rng.choice((("larger", max), ("bigger", max), ("smaller", min)))
    question = rng.choice((f"Which is {word}, {a} or {b}?", f"Which number is {word}: {a} or {b}?", f"Is {a} or {b} {word}?"))
    return ask(question, str(pick(a, b)))


def count(rng: random.Random) -> Task:
    """Count from one number to another; one in twelve is long, up to 200 numbers."""
    if rng.random() < 1 / 12:
        start = rng.choice((1, 1, 1, rng.randint(0, 100)))
        stop = rng.randint(max(start, 30), 200)
    else:
        start = rng.choice((1, 1, rng.randint(0, 200)))
        stop = start + rng.randint(2, 14)
    question = rng.choice((f"Count from {start} to {stop}.", f"Count from {start} to {stop}", f"Count {start} to {stop}."))
    if start == 1 and rng.random() < 0.4:
        question = f"Count to {stop}."
    return ask(question, " ".join(map(str, range(start, stop + 1))))


def sort(rng: random.Random) -> Task:
    """Sort two to six numbers below 100, smallest first."""
    numbers = [rng.randint(0, 99) for _ in range(rng.randint(2, 6))]
    separator = rng.choice((" ", " ", ", "))
    listed = separator.join(map(str, numbers))
    question = rng.choice((f"Sort: {listed}", f"Sort {listed}", f"Sort these numbers: {listed}"))
    return ask(question, separator.join(map(str, sorted(numbers))))
