"""Parties: for whom, where, and who brings what."""

from fedcore.dialogues.scene import Scene

_OCCASIONS = (
    "birthday",
    "wedding",
    "farewell",
    "graduation",
    "surprise party",
    "anniversary",
    "picnic",
)
_FOODS = (
    "a cake",
    "sandwiches",
    "the drinks",
    "fruit salad",
    "cookies",
    "balloons",
    "the music",
    "a big pie",
    "candles",
    "ice cream",
)
_PLACES = ("at the beach", "in the park", "on the roof", "at the lake", "in the barn", "at home")


def play(scene: Scene) -> str:
    host, second, third, star = scene.name(), scene.name(), scene.name(), scene.name()
    occasion = scene.one(_OCCASIONS)
    scene.say(host, f"I plan a {occasion} for {star}.", f"We need a {occasion} for {star}!")
    scene.say(second, "Lovely. Where?", "Good idea, and where?", "Count me in. Where is it?")
    place = scene.settle(host, second, lambda: scene.one(_PLACES))
    scene.digress(second, host)
    scene.say(third, "And when?", "What day?", "When should we come?")
    day = scene.settle(host, third, scene.day)
    food, other = scene.two(_FOODS)
    scene.say(second, f"I bring {food}.", f"I will take care of {food}.")
    if scene.chance(0.4):
        scene.say(host, f"No, {third} has {food} already.", f"{third} wanted to bring {food}.")
        scene.say(second, f"Then I bring {other}.", f"OK, {other} from me.")
        food, other = other, food
    else:
        scene.say(third, f"And I bring {other}.", f"From me {other}.")
    return (
        f"{host} plans a {occasion} for {star} {place} on {day}. {second} brings {food} and "
        f"{third} brings {other}."
    )
