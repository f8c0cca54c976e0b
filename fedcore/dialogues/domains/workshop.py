"""A car workshop, held out. Its summaries are job cards: vehicle, defect, repair, cost, ready."""

from fedcore.dialogues.scene import Scene
from fedcore.dialogues.words import COLOURS

HELD_OUT = True

_VEHICLES = ("van", "pickup", "motorbike", "hatchback", "estate car", "scooter", "tractor", "truck")
_DEFECTS = (
    "squealing brakes",
    "an oil leak",
    "a flat tyre",
    "a cracked windscreen",
    "a dead battery",
    "a slipping clutch",
    "a noisy exhaust",
    "worn shock absorbers",
    "a jammed gearbox",
    "overheating",
    "a misfiring engine",
)
_REPAIRS = (
    "replace the brake pads",
    "weld the exhaust",
    "fit new spark plugs",
    "flush the radiator",
    "tighten the belt",
    "swap the alternator",
    "rebuild the clutch",
    "align the axle",
    "change the gasket",
    "mount winter tyres",
)


def play(scene: Scene) -> str:
    mechanic, owner = scene.name(), scene.name()
    colour, vehicle = scene.one(COLOURS), scene.one(_VEHICLES)
    defect = scene.one(_DEFECTS)
    scene.say(mechanic, "Garage, what is wrong with the vehicle?", f"{mechanic}, workshop, hello.")
    scene.say(
        owner,
        f"My {colour} {vehicle} has {defect}.",
        f"{owner} here. I have {defect} on the {colour} {vehicle}.",
    )
    scene.digress(owner, mechanic, 0.3)
    repair, dropped = scene.two(_REPAIRS)
    scene.say(mechanic, f"I inspected it. We must {repair}.", f"I suggest we {repair}.")
    declined = scene.chance(0.5)
    if declined:
        scene.say(mechanic, f"We could also {dropped}.", f"While we are there, shall we {dropped}?")
        scene.say(owner, "No, leave that.", "Not now, too expensive.", "Skip that, please.")
    cost = scene.price(60, 900)
    other = scene.fresh(lambda: scene.price(60, 900), cost)
    scene.say(
        mechanic,
        f"Parts and labour come to {cost}.",
        f"Normally {other}, for you {cost} with labour.",
    )
    scene.say(owner, "Agreed. When can I collect it?", "Fine. When is it roadworthy?")
    day = scene.settle(owner, mechanic, scene.day)
    refused = f", do not {dropped}" if declined else ""
    return (
        f"Owner: {owner}. Problem: {defect} on the {colour} {vehicle}. Plan: {repair}{refused}. "
        f"Price: {cost}. Return: {day}."
    )
