"""Neighbours in the garden: what is planted, lent and shared."""

from fedcore.dialogues.scene import Scene

_PLANTS = (
    "tomatoes",
    "roses",
    "potatoes",
    "tulips",
    "beans",
    "carrots",
    "strawberries",
    "an apple tree",
    "sunflowers",
    "pumpkins",
    "mint",
    "a cherry tree",
    "lettuce",
    "grapes",
)
_TOOLS = ("shovel", "rake", "ladder", "hose", "saw", "wheelbarrow", "lawn mower", "bucket")
_PLACES = ("behind the shed", "near the gate", "along the wall", "in the sun", "under the oak")


def play(scene: Scene) -> str:
    one, other = scene.name(), scene.name()
    scene.say(one, f"Good morning, {other}!", "What a fine day for the garden.", "Hi neighbour.")
    scene.say(other, "What will you plant this year?", "Is there something new in your garden?")
    plant = scene.settle(one, other, lambda: scene.one(_PLANTS))
    place = scene.one(_PLACES)
    scene.say(one, f"I will put that {place}.", f"They say it grows best {place}.")
    scene.digress(one, other)
    tool, wrong = scene.two(_TOOLS)
    if scene.chance(0.5):
        scene.say(one, f"Could you lend me your {tool}?", f"I need a {tool}, do you have one?")
        borrowed = tool
    else:
        scene.say(one, f"Could you lend me your {wrong}?", f"May I borrow a {wrong}?")
        scene.say(
            other, f"The {wrong} is broken, but you can have the {tool}.", f"I only have a {tool}."
        )
        borrowed = tool
    scene.say(other, "Keep it for a while. When do I get it back?", "But I need it back soon.")
    day = scene.settle(one, other, scene.day)
    if scene.chance(0.4):
        share = scene.count(2, 20)
        scene.say(
            one,
            f"You will get {share} kilos of the harvest.",
            f"I will give you {share} kilos later.",
        )
        return (
            f"{one} plants {plant} {place}, borrows the {borrowed} of {other} until {day} and "
            f"promises {share} kilos."
        )
    scene.thank(one)
    return f"{one} plants {plant} {place} and borrows the {borrowed} of {other} until {day}."
