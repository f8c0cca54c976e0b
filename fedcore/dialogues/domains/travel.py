"""Trips: who books what to where, when and for how much."""

from fedcore.dialogues.scene import Scene

_VEHICLES = ("train", "flight", "ferry", "bus", "night train", "rental car")
_EXTRAS = ("a window seat", "extra luggage", "breakfast", "insurance", "a child seat", "a meal")


def play(scene: Scene) -> str:
    guest, agent = scene.name(), scene.name()
    vehicle, extra = scene.one(_VEHICLES), scene.one(_EXTRAS)
    scene.say(
        agent,
        "Hello, where would you like to go?",
        "Travel desk, how can I help?",
        "Good morning, what trip do you have in mind?",
    )
    where, elsewhere = scene.city(), scene.city()
    scene.say(
        guest,
        f"I need a {vehicle} to {where}.",
        f"I want to take the {vehicle} to {where}.",
        f"I thought of {elsewhere}, but now I want a {vehicle} to {where}.",
    )
    scene.digress(guest, agent)
    scene.say(agent, "Which day?", "When would you like to leave?", "When do you travel?")
    day = scene.settle(guest, agent, scene.day)
    people = scene.count(2, 6)
    scene.say(guest, f"We are {people} people.", f"There are {people} of us.")
    price = scene.price(40, 900)
    scene.say(agent, f"That makes {price} in total.", f"The total is {price}.")
    has_extra = scene.chance(0.5)
    scene.say(agent, f"Do you need {extra}?", f"Shall I add {extra}?")
    if has_extra:
        scene.say(guest, "Yes, please.", f"Yes, add {extra}.", "That would be nice, yes.")
    else:
        scene.say(guest, "No, thank you.", f"No, I do not need {extra}.", "Not this time.")
    scene.thank(guest)
    ending = "with" if has_extra else "without"
    return (
        f"{guest} books a {vehicle} to {where} on {day} for {people} people, "
        f"{ending} {extra}, for {price}."
    )
