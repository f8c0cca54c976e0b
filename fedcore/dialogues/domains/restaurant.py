"""A restaurant: tables booked and dishes ordered."""

from fedcore.dialogues.scene import Scene

_DISHES = (
    "soup",
    "salad",
    "pizza",
    "steak",
    "fish",
    "pasta",
    "burger",
    "curry",
    "omelette",
    "risotto",
    "pancakes",
    "noodles",
    "tacos",
    "lamb stew",
)
_ADDITIONS = ("onions", "cheese", "garlic", "nuts", "salt", "butter", "mushrooms", "pepper")
_DRINKS = ("water", "red wine", "apple juice", "tea", "beer", "lemonade", "coffee")


def _book(scene: Scene, guest: str, waiter: str) -> str:
    people, surname = scene.count(2, 12), scene.surname()
    scene.say(guest, f"I want to book a table for {people}.", f"A table for {people}, please.")
    scene.say(waiter, "For which day?", "When will you come?")
    day = scene.settle(guest, waiter, scene.day)
    scene.digress(guest, waiter)
    scene.say(waiter, "And at what time?", "What time?")
    hour = scene.settle(guest, waiter, scene.hour)
    scene.say(waiter, "Your name?", "Under what name?")
    scene.say(guest, f"{surname}.", f"{guest} {surname}.", f"The name is {surname}.")
    return f"Table for {people} on {day} at {hour} under the name {surname}."


def _order(scene: Scene, guest: str, waiter: str) -> str:
    friend = scene.name()
    addition, drink = scene.one(_ADDITIONS), scene.one(_DRINKS)
    scene.say(waiter, "What would you like to eat?", "Are you ready to order?")
    dish = scene.settle(guest, waiter, lambda: scene.one(_DISHES))
    scene.say(guest, f"No {addition}, please.", f"But without {addition}.")
    scene.digress(guest, friend)
    other = scene.fresh(lambda: scene.one(_DISHES), dish)
    scene.say(friend, f"For me the {other}.", f"I will have the {other}.")
    scene.say(friend, f"And {drink} for both of us.", f"We both drink {drink}.")
    return (
        f"{guest} orders {dish} without {addition} and {friend} orders {other}. Both have {drink}."
    )


def play(scene: Scene) -> str:
    guest, waiter = scene.name(), scene.name()
    scene.say(waiter, "Good evening.", "Welcome.", f"Hello, I am {waiter}.")
    summary = (_book if scene.chance(0.5) else _order)(scene, guest, waiter)
    scene.thank(guest)
    return summary
