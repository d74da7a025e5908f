"""What the demo bookshop sells: a thousand made-up books in fifty categories.

The books are put together from the word lists below by a random generator with a fixed seed,
so every run, on every machine, has the same titles, prices and reviews.  `CATALOGUE` holds the books in
the order of the shop's listing pages and `CATEGORIES` the categories in the order of its side bar.
"""

import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

_SEED = 20_240_229
# Letters which have no decomposition into an ASCII letter and an accent.
_LETTERS = str.maketrans({"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ß": "ss", "π": "pi", "&": " and ", "'": ""})
_FIRST_DAY = date(2023, 1, 2)


@dataclass(frozen=True, slots=True)
class Category:
    """A shelf of the shop; `number` is the one at the end of its address."""

    number: int
    name: str
    slug: str

    @property
    def directory(self) -> str:
        """The last folder of the category's address, such as `travel_2`."""
        return f"{self.slug}_{self.number}"

    @property
    def path(self) -> str:
        """The path of the category's first listing page."""
        return f"/catalogue/category/books/{self.directory}/index.html"


@dataclass(frozen=True, slots=True)
class Review:
    """What one reader thought of a book, with one to five stars."""

    author: str
    stars: int
    text: str


@dataclass(frozen=True, slots=True)
class Product:
    """One book of the shop."""

    id: int
    title: str
    slug: str
    category: Category
    price: Decimal
    tax: Decimal
    rating: int
    stock: int
    upc: str
    description: str
    added: date
    reviews: tuple[Review, ...]

    @property
    def directory(self) -> str:
        """The folder of the book's pages, such as `the-quiet-ferry_12`."""
        return f"{self.slug}_{self.id}"

    @property
    def path(self) -> str:
        """The path of the book's own page."""
        return f"/catalogue/{self.directory}/index.html"

    @property
    def reviews_path(self) -> str:
        """The path of the page with the book's reviews."""
        return f"/catalogue/{self.directory}/reviews.html"

    @property
    def price_incl_tax(self) -> Decimal:
        """What the customer pays."""
        return self.price + self.tax

    @property
    def availability(self) -> str:
        """The stock as the book's page words it."""
        return f"In stock ({self.stock} available)" if self.stock else "Out of stock"


@dataclass(frozen=True, slots=True)
class _Shelf:
    """How to fill a category: its size, whether it tells stories, and the things its books are about."""

    name: str
    size: int
    fiction: bool
    subjects: tuple[str, ...]


def _story(name: str, size: int, subjects: str) -> _Shelf:
    return _Shelf(name, size, True, tuple(subjects.split(", ")))


def _facts(name: str, size: int, subjects: str) -> _Shelf:
    return _Shelf(name, size, False, tuple(subjects.split(", ")))


# Subjects of stories are single things, subjects of factual books are plurals: the sentences rely on it.
# The sizes add up to 1,000, and include 1, exactly one page (20), one more (21) and exactly two pages (40).
_SHELVES = (
    _facts("Travel", 62, "night trains, mountain passes, ferries, border towns, slow roads, islands, harbours, canals"),
    _story("Mystery", 41, "alibi, locked room, telegram, inheritance, footprint, candlestick, witness, key"),
    _story("Historical Fiction", 38, "cartographer, regiment, weaver, siege, galleon, apothecary, courtier, mill"),
    _story("Contemporary Fiction", 75, "neighbour, allotment, wedding, commute, kitchen, divorce, bookshop, reunion"),
    _facts("Food & Drink", 20, "sourdoughs, pickles, dumplings, street markets, spices, teapots, orchards, soups"),
    _facts("Philosophy", 12, "paradoxes, doubts, thought experiments, good intentions, first principles, hunches"),
    _story("Romance", 33, "letter, waltz, lighthouse, second chance, bakery, summer, promise, umbrella"),
    _story("Science Fiction", 27, "airlock, orbit, android, colony, signal, generation ship, comet, algorithm"),
    _facts("Astronomy", 9, "eclipses, comets, nebulae, telescopes, dark skies, moons"),
    _story("Fantasy", 48, "dragon, oath, mirror, hedge witch, crown, riddle, glass tower, river god"),
    _story("Crime", 21, "heist, informant, ledger, forgery, getaway, detective, pawnshop, confession"),
    _facts("Typography", 5, "letterforms, ligatures, serifs, shop signs, footnotes, printing presses"),
    _facts("Gardening", 16, "roses, compost heaps, greenhouses, ferns, window boxes, vegetable beds, hedges, bees"),
    _story("Novels", 110, "orchard, winter, stranger, piano, ferry, schoolhouse, estuary, photograph, clockmaker"),
    _facts("Cartography", 3, "sea charts, contour lines, globes, lost islands, compasses"),
    _facts("Science & Nature", 24, "mosses, tides, glaciers, owls, fossils, volcanoes, migrations, clouds"),
    _facts("Biography", 30, "inventors, sailors, surgeons, painters, diplomats, engineers, gardeners, spies"),
    _facts("Mathematics", 8, "primes, knots, proofs, magic squares, infinities, sums"),
    _story("Poetry", 14, "heron, rain, threshold, nocturne, salt, bell, harvest, stone"),
    _facts("Music", 19, "string quartets, brass bands, lullabies, drum machines, pianos, sea shanties, fugues, choirs"),
    _story("Children's Books", 40, "hippo, kite, biscuit, puddle, moon, hedgehog, wellington boot, robot"),
    _facts("Falconry", 1, "kestrels, falcons, gloves, moorlands"),
    _story("Thriller", 26, "countdown, courier, safe house, submarine, double agent, blackout, summit, cipher"),
    _facts("Psychology", 11, "habits, memories, dreams, first impressions, grudges, daydreams"),
    _facts("Architecture", 7, "staircases, bridges, bay windows, cathedrals, railway stations, courtyards"),
    _story("Young Adult", 55, "rooftop, secret, skateboard, exam, rumour, summer job, rebellion, lighthouse, mixtape"),
    _facts("Art & Design", 18, "still lifes, posters, murals, portraits, ceramics, woodcuts, colours, chairs"),
    _story("Horror", 22, "cellar, scarecrow, fog, doll, asylum, séance, well, whisper"),
    _facts("Beekeeping", 4, "hives, swarms, queens, meadows, honeycombs"),
    _facts("Business", 13, "meetings, start-ups, spreadsheets, bad bosses, family firms, markets"),
    _facts("History", 29, "empires, plagues, trade routes, treaties, castles, revolutions, guilds, archives"),
    _facts("Linguistics", 6, "vowels, dialects, alphabets, swear words, loanwords, silent letters"),
    _facts("Health & Fitness", 10, "long walks, sleepless nights, stretches, cold swims, breakfasts, knees"),
    _facts("Computing", 17, "compilers, queues, spreadsheets, floating points, robots, parsers, databases, bugs"),
    _story("Humour", 36, "goose, committee, trousers press, vicar, parking space, sandwich, caravan, weather forecast"),
    _facts("Origami", 2, "paper cranes, folds, boxes, paper frogs"),
    _story("Short Stories", 15, "window, tram, parcel, aunt, snowfall, lodger, staircase, postcard"),
    _story("Adventure", 23, "expedition, shipwreck, compass, jungle, avalanche, treasure, balloon, smuggler"),
    _facts("Lighthouses", 1, "lighthouses, lamps, keepers, fog horns"),
    _facts("Politics", 9, "elections, speeches, constitutions, borders, petitions, parliaments"),
    _facts("Photography", 3, "darkrooms, shadows, portraits, pinholes, long exposures"),
    _facts("Sport", 8, "marathons, own goals, bicycles, underdogs, cup finals, referees"),
    _facts("Chess", 2, "endgames, gambits, pawns, blunders"),
    _story("Graphic Novels", 6, "superhero, sidekick, robot, metropolis, time machine, comet"),
    _facts("Religion", 4, "pilgrims, hymns, monasteries, parables, prophets"),
    _facts("Clocks & Watches", 1, "pendulums, escapements, sundials, springs"),
    _story("Fairy Tales", 5, "frog, spindle, giant, wishing well, goose girl, wolf"),
    _facts("Crafts", 7, "quilts, knitting patterns, baskets, candles, looms, bookbindings"),
    _facts("Economics", 2, "markets, shortages, coins, incentives"),
    _facts("Games & Puzzles", 2, "crosswords, jigsaws, mazes, card tricks"),
)

# Titles which try the escaping of a page, of an address and of whatever a spider writes them to.
_SPECIAL_TITLES = {
    "Mathematics": ("If a < b & b < c, Then What?", "π for Pudding: Sums for Sundays"),
    "Travel": ('"Mind the Gap" & Other Things Stations Say', "Straße nach Köln: Eine Reise in Zügen"),
    "Poetry": ("L'été à Besançon", "Смерть часов / Death of the Clocks"),
    "Computing": ("</Chapter>: A Life in Mark-up", "Null & Void: 100% Proof Programs", "Why Does C++ Say 'No'?"),
    "Food & Drink": ("Crème Brûlée, Jalapeños & Smørrebrød", "Fish 'n' Chips"),
    "Short Stories": ("五つの橋 (Five Bridges)", "Ὀδός: Roads, Rows & Rivers"),
    "Linguistics": ("Ça va? Ño! Žluťoučký: Accents, and Why They Are There",),
    "Children's Books": ('"Is It Tea-time Yet?" Asked the Hippo', "1, 2, 3… Splash!"),
}

_NAMES = (
    "Anaïs", "Bjørn", "Chloé", "Dmitri", "Eilidh", "Fatima", "Günther", "Håkon", "Iñaki", "Jasper", "Kwame", "Leïla",
    "Mairéad", "Noor", "Oluwaseun", "Priya", "Quentin", "Rosa", "Søren", "Tomáš", "Ulla", "Violet", "Wanjiru",
    "Xochitl", "Yusuf", "Zoë",
)  # fmt: skip
_SURNAMES = (
    "Abbott", "Brännström", "Castellanos", "Dlamini", "Eriksen", "Fairweather", "Grzybowski", "Hollis", "Ibáñez",
    "Jankowska", "Kettle", "Lindqvist", "Marchetti", "Nakamura", "O'Dowd", "Pemberton", "Quayle", "Rousseau",
    "Sato", "Thistlewood", "Ueda", "Vasquez", "Whitlock", "Young",
)  # fmt: skip
_PLACES = (
    "Aberystwyth", "Besançon", "Cádiz", "Dundee", "Esbjerg", "Fowey", "Galway", "Halifax", "İzmir", "Jaipur",
    "Kraków", "Łódź", "Malmö", "Nîmes", "Orkney", "Plzeň", "Québec", "Reykjavík", "São Tomé", "Tromsø", "Ullapool",
    "Valparaíso", "Whitby", "Yokohama", "Zürich",
)  # fmt: skip
_ADJECTIVES = (
    "quiet", "crooked", "borrowed", "last", "forgotten", "second", "patient", "hollow", "reluctant", "northern",
    "paper", "unlikely", "midnight", "gilded", "honest", "stubborn", "salt-white", "invisible", "everyday", "distant",
    "clockwork", "thirteenth", "sleeping", "ordinary", "wandering", "copper", "unfinished", "amber",
)  # fmt: skip
_FATES = ("Price", "Reasons", "Season", "Shadow", "Tuesday", "Echo", "Secrets", "Weather")

_STORY_TITLES = (
    "The {adjective} {subject}",
    "The {subject} & the {other}",
    "{a_subject} in {place}",
    "{name}'s {subject}",
    "The {subject} Beyond the {other}",
    "Every {subject} Has Its {fate}",
    "What the {adjective} {subject} Knew",
    "The Last {subject} Before {place}",
    '"Hush!" Said the {subject}',
    "{name} and the {adjective} {subject}",
    "No {subject} for {name}",
    "The {adjective} {subject} of {place}",
    "{place}, or the {adjective} {subject}",
    "The {subject} ({adjective} {other} #{number})",
    "How {name} & {friend} Lost the {adjective} {subject} and Found {place}",
)
_FACT_TITLES = (
    "A Short History of {subject}",
    "The {adjective} Guide to {subject}",
    "{subject} & {other}: A Companion",
    "How to Think About {subject}",
    "{subject} for the Curious",
    "Why {subject} Matter",
    "{number} Essays on {subject}",
    "The {subject} of {place}",
    "The Secret Life of {subject}",
    '"But Why?" Questions About {subject}',
    "{name}'s Book of {subject}",
    "An Atlas of {adjective} {subject}",
    "The Trouble with {subject}",
    "{number} {subject} to See Before Breakfast",
    "{subject}: What They Are, Where They Came From & What {place} Did About Them",
)

_STORY_SENTENCES = (
    "When {name} comes to {place} with one suitcase and a borrowed coat, the {subject} is the first thing to go wrong.",
    "Nobody in {place} talks about the {subject}, and {name} is beginning to understand why.",
    "It starts with the {adjective} {subject} & ends, three hundred pages later, with a door left open.",
    "{name} has one week, two enemies and no idea what the {other} is for.",
    "Between {place} and the sea lies a house where the {subject} was never mentioned again.",
    "{name} promised {friend} never to go back to {place}; the letter that comes on Monday changes that.",
    'Only {friend} knows what "the {adjective} {subject}" really means, and {friend} is not telling.',
    "Then the {other} turns up, and the whole town has an opinion on it.",
    "A story about families, weather and the small lies that keep both bearable.",
    "Funny on one page and heart-breaking on the next, it keeps its best surprise for the final chapter.",
)
_FACT_SENTENCES = (
    "Everything you meant to ask about {subject}, with pictures where words fail.",
    "{name} {surname} spent eleven years in {place} looking at {subject} so that you do not have to.",
    "Beginning in {place} and ending at your own front door, this book follows {subject} through four centuries.",
    "The chapters on {other} alone are worth the price (and the weight).",
    'What do {subject} & {other} have in common? Rather more than the phrase "{adjective} coincidence" suggests.',
    "With a foreword by {friend} {surname}, who disagrees with most of it.",
    "There are maps, tables, a very long index and fewer than ten equations.",
    "Written for beginners, it does not mind if you already know a thing or two about {subject}.",
    "The second edition adds a chapter on {other} and corrects the recipe on page 112.",
    "By the end you will never look at {subject} in the same way again.",
)
_PRAISE = (
    "I read it in one sitting, missed my stop and ended up in {place}.",
    "My copy is full of pencil notes; I have bought two more to give away.",
    "{name} in our reading group cried. So did the rest of us.",
    "Warm, clever & beautifully made. The paper smells good, too.",
)
_SHRUGS = (
    "Good in parts: the middle could lose fifty pages.",
    'Described to me as "unputdownable". I put it down twice, but I did finish it.',
    "Fine for a train journey as far as {place}, not further.",
    "Not what I expected from the cover, yet I would read the next one.",
)
_GRUMBLES = (
    "It arrived on time. That is the best I can say.",
    "I have been to {place}, and it is nothing like that.",
    "Too many footnotes & not enough plot.",
    "Gave it to {name}, who gave it back.",
)


def slugify(text: str) -> str:
    """Turn a title into lower-case ASCII letters, digits and hyphens for use in an address."""
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip("-")


def _capitalised(words: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in words.split(" "))


def _with_article(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {_capitalised(noun)}"


def _pair(rng: random.Random, words: Sequence[str]) -> tuple[str, str]:
    first, second = rng.sample(words, 2)
    return first, second


def _make_title(rng: random.Random, shelf: _Shelf) -> str:
    subject, other = _pair(rng, shelf.subjects)
    name, friend = _pair(rng, _NAMES)
    return rng.choice(_STORY_TITLES if shelf.fiction else _FACT_TITLES).format(
        subject=_capitalised(subject),
        a_subject=_with_article(subject),
        other=_capitalised(other),
        adjective=_capitalised(rng.choice(_ADJECTIVES)),
        name=name,
        friend=friend,
        place=rng.choice(_PLACES),
        fate=rng.choice(_FATES),
        number=rng.randint(2, 60),
    )


def _make_titles(rng: random.Random, shelf: _Shelf, taken: set[str]) -> list[str]:
    titles = list(_SPECIAL_TITLES.get(shelf.name, ()))
    while len(titles) < shelf.size:
        title = _make_title(rng, shelf)
        if title not in taken:
            taken.add(title)
            titles.append(title)
    return titles


def _make_description(rng: random.Random, shelf: _Shelf) -> str:
    subject, other = _pair(rng, shelf.subjects)
    name, friend = _pair(rng, _NAMES)
    sentences = rng.sample(_STORY_SENTENCES if shelf.fiction else _FACT_SENTENCES, rng.randint(2, 5))
    text = " ".join(sentences).format(
        subject=subject,
        other=other,
        adjective=rng.choice(_ADJECTIVES),
        name=name,
        friend=friend,
        surname=rng.choice(_SURNAMES),
        place=rng.choice(_PLACES),
    )
    return text[0].upper() + text[1:]


def _make_reviews(rng: random.Random, rating: int) -> tuple[Review, ...]:
    texts: set[str] = set()
    reviews = []
    for _ in range(rng.randint(0, 4)):
        stars = min(5, max(1, rating + rng.randint(-1, 1)))
        choices = _PRAISE if stars > 3 else _SHRUGS if stars == 3 else _GRUMBLES
        pattern = rng.choice([text for text in choices if text not in texts])
        texts.add(pattern)
        author = f"{rng.choice(_NAMES)} {rng.choice(_SURNAMES)}"
        reviews.append(Review(author, stars, pattern.format(name=rng.choice(_NAMES), place=rng.choice(_PLACES))))
    return tuple(reviews)


def _make_product(rng: random.Random, number: int, title: str, shelf: _Shelf, category: Category) -> Product:
    rating = rng.randint(1, 5)
    return Product(
        id=number,
        title=title,
        slug=slugify(title),
        category=category,
        price=Decimal(rng.randint(1000, 5999)).scaleb(-2),
        tax=Decimal("0.00"),  # books are zero-rated in the country of the pound
        rating=rating,
        stock=0 if rng.randrange(20) == 0 else rng.randint(1, 22),
        upc=f"{rng.getrandbits(64):016x}",
        description=_make_description(rng, shelf),
        added=_FIRST_DAY + timedelta(days=rng.randrange(700)),
        reviews=_make_reviews(rng, rating),
    )


def _make_categories() -> tuple[Category, ...]:
    # Number 1 is the root category, which holds all books.
    return tuple(Category(number, shelf.name, slugify(shelf.name)) for number, shelf in enumerate(_SHELVES, 2))


def _make_catalogue(categories: Sequence[Category]) -> tuple[Product, ...]:
    rng = random.Random(_SEED)
    taken: set[str] = set()
    books = [
        (title, shelf, category)
        for shelf, category in zip(_SHELVES, categories, strict=True)
        for title in _make_titles(rng, shelf, taken)
    ]
    rng.shuffle(books)
    return tuple(_make_product(rng, number, *book) for number, book in enumerate(books, 1))


CATEGORIES: tuple[Category, ...] = _make_categories()
CATALOGUE: tuple[Product, ...] = _make_catalogue(CATEGORIES)


def products_in(category: Category) -> tuple[Product, ...]:
    """The books of one category, in the order of its listing pages."""
    return tuple(product for product in CATALOGUE if product.category == category)
