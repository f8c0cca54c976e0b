"""A dialogue under construction: random values, lines, bargaining and small talk."""

import random
import re
from collections.abc import Callable, Sequence

from fedcore.dialogues import words

_SENTENCE_START = re.compile(r"^[a-z]|(?<=[.!?] )[a-z]")

_PROPOSE = (
    "Would {x} work?",
    "How about {x}?",
    "I was thinking of {x}.",
    "I would like {x}, please.",
    "Could we say {x}?",
    "Is {x} possible?",
    "Let us say {x}.",
    "{x} would suit me.",
)
_ACCEPT = (
    "{x} is fine.",
    "Yes, {x} works.",
    "Sure, {x} it is.",
    "Good, I will put down {x}.",
    "All right, {x}.",
    "{x}, no problem.",
)
_REFUSE = (
    "Sorry, {x} is not possible. {y} would be.",
    "Not {x}, I am afraid. What about {y}?",
    "{x} is out of the question, but {y} is open.",
    "I cannot do {x}. Could it be {y}?",
    "Hmm, {x} will not do. I can offer {y}.",
)
_YIELD = ("Then {y}.", "{y} is good too.", "Fine, let us take {y}.", "OK, {y} it is.")
_COUNTER = (
    "No, {y} is bad for me. {z} instead?",
    "I do not like {y}. Is {z} free?",
    "{y} never works for me. Make it {z}.",
)
_REGRET = (
    "Wait, not {x} after all. Make it {y}.",
    "Actually, I changed my mind: {y} instead of {x}.",
    "Oh no, I forgot something. {x} is bad, {y} is better.",
    "Sorry, can we switch to {y}?",
)
_CHOICE = ("It can be {x} or {y}.", "We have {x} and also {y}.", "You may choose: {x} or {y}?")
_AFTER = (
    "Good that we did not take {x}.",
    "{x} would have been too hard anyway.",
    "My friend always asks for {x}, but never mind.",
    "Last time it was {x}, remember?",
)
_DIGRESS = (
    ("Did you see the rain on {day}?", "Yes, it rained for {n} hours."),
    ("How is {name} these days?", "Busy as ever, {name} sends regards."),
    ("By the way, {name} called at {hour}.", "Thanks, I will call back on {day}."),
    ("Is it always this loud in here?", "Only on {day}, and around {hour}."),
    ("I waited {n} minutes for the bus.", "That bus is never on time."),
    ("Have you met {name}?", "Once, in {city}. A patient and careful person."),
    ("I paid {n} dollars for a coffee today.", "Everything costs more now."),
    ("What is the matter with the lift?", "It stopped on {day}. Nobody repairs it."),
    ("I read the news, nothing but bad reports.", "Then read a book instead."),
    ("My sister moves to {city} on {day}.", "That is a big step."),
    ("You look tired.", "I slept {n} hours, the baby cried again."),
    ("Did {name} ever answer you?", "No, not since {day}."),
    ("It smells of {word} in here.", "That must be {name} again."),
    ("Somebody left a {word} at the door.", "It belongs to {name}."),
    ("The team lost again, {n} to nothing.", "In any case they played well."),
    ("Nice {word} you have there.", "Thank you, it was a present from {name}."),
)
_ASIDE = (
    "Excuse me, has anybody seen my {word}?",
    "Sorry to interrupt, is {hour} the break?",
    "Hello all, I only came for the {word}.",
    "Do not mind me, I leave at {hour}.",
    "Somebody called {name} is at the door.",
    "Can I have the {word} back by {day}?",
)
_ASIDE_ANSWER = ("Later, please.", "Ask {name}, not me.", "No idea.", "One moment, we are busy.")
_THANKS = (
    "Thank you, goodbye.",
    "Great, thanks.",
    "Perfect, see you then.",
    "That helps a lot, bye.",
    "Thanks for your time.",
    "Lovely, thank you.",
)


class Scene:
    """One dialogue under construction. All names in a scene differ."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._lines: list[str] = []
        self._used_names: set[str] = set()

    def text(self) -> str:
        return "\n".join(self._lines)

    # Random values

    def one(self, options: Sequence[str]) -> str:
        return self.rng.choice(options)

    def two(self, options: Sequence[str]) -> tuple[str, str]:
        first, second = self.rng.sample(list(options), 2)
        return first, second

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def name(self) -> str:
        """A first name; one in four is invented, so that a model has to copy names."""
        while True:
            invented = self.chance(0.25)
            name = self._coined().capitalize() if invented else self.one(words.FIRST_NAMES)
            if name not in self._used_names:
                self._used_names.add(name)
                return name

    def surname(self) -> str:
        return self._coined().capitalize() if self.chance(0.5) else self.one(words.SURNAMES)

    def word(self) -> str:
        return self._coined() if self.chance(0.15) else self.one(words.THINGS)

    def city(self) -> str:
        return self._coined().capitalize() if self.chance(0.2) else self.one(words.CITIES)

    def day(self) -> str:
        return self.one(words.DAYS)

    def date(self) -> str:
        return f"{self.rng.randint(1, 28)} {self.one(words.MONTHS)}"

    def hour(self) -> str:
        return f"{self.rng.randint(7, 20)}:{self.one(('00', '15', '30', '45'))}"

    def count(self, low: int, high: int) -> str:
        return str(self.rng.randint(low, high))

    def price(self, low: int, high: int) -> str:
        step = 5 if high > 100 else 1
        return f"{self.rng.randrange(low, high + 1, step)} dollars"

    def fresh(self, draw: Callable[[], str], *others: str) -> str:
        """A value of `draw` that differs from `others`."""
        value = draw()
        while value in others:
            value = draw()
        return value

    def _coined(self) -> str:
        return "".join(
            self.one(words.ONSETS) + self.one(words.VOWELS) for _ in range(self.rng.randint(2, 3))
        ) + self.one(words.CODAS)

    # Lines

    def say(self, who: str, *options: str) -> None:
        line = _SENTENCE_START.sub(lambda match: match[0].upper(), self.one(options))
        self._lines.append(f"{who}: {line}")

    def settle(self, asker: str, answerer: str, draw: Callable[[], str]) -> str:
        """Bargain about one value; returns the value agreed on."""
        x = draw()
        y = self.fresh(draw, x)
        z = self.fresh(draw, x, y)

        def say(who: str, options: Sequence[str]) -> None:
            self.say(who, self.one(options).format(x=x, y=y, z=z))

        course = self.rng.randrange(6)
        if course == 0:
            say(asker, _PROPOSE)
            say(answerer, _ACCEPT)
            return x
        if course == 1:
            say(asker, _PROPOSE)
            say(answerer, _REFUSE)
            say(asker, _YIELD)
            return y
        if course == 2:
            say(asker, _PROPOSE)
            say(answerer, _ACCEPT)
            say(asker, _REGRET)
            self.say(answerer, self.one(_ACCEPT).format(x=y))
            return y
        if course == 3:
            say(asker, _PROPOSE)
            say(answerer, _REFUSE)
            say(asker, _COUNTER)
            self.say(answerer, self.one(_ACCEPT).format(x=z))
            return z
        say(answerer, _CHOICE)
        chosen, other = (x, y) if course == 4 else (y, x)
        self.say(asker, self.one(_YIELD).format(y=chosen))
        if self.chance(0.5):
            self.say(answerer, self.one(_AFTER).format(x=other))
        return chosen

    def digress(self, one: str, other: str, share: float = 0.4) -> None:
        """Add small talk, with probability `share`, whose details do not belong in a summary."""
        if not self.chance(share):
            return
        if self.chance(0.2):
            self.say(self.name(), self._fill(self.one(_ASIDE)))
            self.say(other, self._fill(self.one(_ASIDE_ANSWER)))
            return
        filled = self._fill("\n".join(self.rng.choice(_DIGRESS)))
        for who, line in zip((one, other), filled.split("\n"), strict=True):
            self.say(who, line)

    def thank(self, who: str) -> None:
        if self.chance(0.6):
            self.say(who, *_THANKS)

    def _fill(self, line: str) -> str:
        return line.format(
            name=self.name(),
            day=self.day(),
            hour=self.hour(),
            n=self.count(2, 30),
            city=self.city(),
            word=self.word(),
        )
