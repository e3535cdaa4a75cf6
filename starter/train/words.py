"""The closed word lists that every skill draws from, and made-up words for what the lists do not hold."""

import random

NOUNS = """
river stone house apple bread cloud storm tiger horse table chair lamp window door garden ocean mountain forest bridge
castle paper pencil orange lemon rocket engine wheel mirror candle piano guitar drum flute shadow winter summer spring
autumn morning evening market harbor island desert valley meadow falcon eagle rabbit turtle salmon dragon wizard knight
queen king pilot sailor farmer baker teacher doctor poet singer dancer painter cat dog bird fish mouse sun moon star rain
snow wind fire water tree leaf flower grass hill road train boat plane book letter word clock coin ring box key cup plate
spoon knife cake soup cheese butter honey sugar salt pepper banana cherry grape peach tomato potato carrot onion
""".split()
ADJECTIVES = "blue green red light silver gold copper iron velvet cotton marble crystal happy quiet little big".split()
WORDS = NOUNS + ADJECTIVES + "hello world good day one two three yes no and the".split()

PEOPLE = """
Anna Boris Clara David Elena Felix Greta Hugo Irene Jonas Karla Leo Maria Nina Oscar Paula Quinn Rosa Simon Tara Ugo Vera
Walter Xenia Yusuf Zoe Adam Bella Carlos Diana Alice Bob
""".split()

CAPITALS = {
    "France": "Paris", "England": "London", "Norway": "Oslo", "Spain": "Madrid", "Italy": "Rome", "Germany": "Berlin",
    "Austria": "Vienna", "Poland": "Warsaw", "Portugal": "Lisbon", "Ireland": "Dublin", "Greece": "Athens",
    "Egypt": "Cairo", "Japan": "Tokyo", "Peru": "Lima", "Ecuador": "Quito", "Colombia": "Bogota", "Cuba": "Havana",
    "Canada": "Ottawa", "Kenya": "Nairobi", "Ghana": "Accra", "Senegal": "Dakar", "Tunisia": "Tunis", "Qatar": "Doha",
    "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Hungary": "Budapest", "Chile": "Santiago",
}
CITIES = [*CAPITALS.values(), "Boston", "Denver", "Seattle", "Chicago", "Sydney", "Lagos", "Dubai", "Seoul", "Delhi"]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

ONSETS = "b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl gr pl pr sh st th tr".split()
VOWELS = "a e i o u".split()
CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "x", "ck", "nd"]


def made_up_word(rng: random.Random) -> str:
    """A pronounceable word of one to three syllables that is in no list."""
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.choice((1, 2, 2, 3))))


def word(rng: random.Random, unknown: float) -> str:
    """One word: made up with probability `unknown`, else from the list."""
    return made_up_word(rng) if rng.random() < unknown else rng.choice(WORDS)


def words(rng: random.Random, low: int, high: int, unknown: float = 0.0) -> list[str]:
    """Between `low` and `high` words, drawn independently."""
    return [word(rng, unknown) for _ in range(rng.randint(low, high))]
