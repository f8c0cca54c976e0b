"""A shop: what is bought or returned, in which colour and size, at what price."""

from fedcore.dialogues.scene import Scene
from fedcore.dialogues.words import COLOURS

_GOODS = (
    "jacket",
    "dress",
    "shirt",
    "sweater",
    "coat",
    "pair of shoes",
    "hat",
    "backpack",
    "sofa",
    "lamp",
    "carpet",
    "pair of jeans",
    "scarf",
    "raincoat",
    "skirt",
)
_FLAWS = ("too small", "too big", "torn", "dirty", "the wrong colour", "too warm", "broken")
_SIZES = ("small", "medium", "large", "extra large")


def _buy(scene: Scene, buyer: str, clerk: str, goods: str) -> str:
    scene.say(buyer, f"I am looking for a {goods}.", f"Do you have a nice {goods}?")
    scene.say(clerk, "Which colour?", "What colour do you like?")
    colour = scene.settle(buyer, clerk, lambda: scene.one(COLOURS))
    scene.digress(buyer, clerk)
    size = scene.one(_SIZES)
    scene.say(buyer, f"In {size}, please.", f"My size is {size}.")
    price, before = scene.price(10, 90), scene.price(91, 99)
    scene.say(clerk, f"It costs {price}.", f"It was {before}, today it is {price}.")
    how = scene.one(("cash", "by card"))
    scene.say(buyer, f"I pay {how}.", f"I will take it and pay {how}.")
    return f"{buyer} buys a {colour} {goods} in {size} and pays {price} {how}."


def _return(scene: Scene, buyer: str, clerk: str, goods: str) -> str:
    flaw, day = scene.one(_FLAWS), scene.day()
    scene.say(
        buyer,
        f"I bought this {goods} on {day}, but it is {flaw}.",
        f"I want to return this {goods} from {day}. It is {flaw}.",
    )
    scene.say(clerk, "Do you want the money back or another one?", "A refund or an exchange?")
    scene.digress(buyer, clerk)
    if scene.chance(0.5):
        price = scene.price(10, 99)
        scene.say(buyer, "The money, please.", "I prefer a refund.")
        scene.say(clerk, f"Here are your {price}.", f"I give you back {price}.")
        return f"{buyer} returns a {goods} because it is {flaw} and gets back {price}."
    scene.say(buyer, "Another one, please.", "I will exchange it. Which colours are there?")
    colour = scene.settle(buyer, clerk, lambda: scene.one(COLOURS))
    return f"{buyer} returns a {goods} because it is {flaw} and takes a {colour} one instead."


def play(scene: Scene) -> str:
    buyer, clerk = scene.name(), scene.name()
    scene.say(clerk, "Can I help you?", "Welcome to the shop.", "Next customer, please.")
    kind = _buy if scene.chance(0.55) else _return
    summary = kind(scene, buyer, clerk, scene.one(_GOODS))
    scene.thank(buyer)
    return summary
