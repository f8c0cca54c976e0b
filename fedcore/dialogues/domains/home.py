"""Chores at home: who does what, and by when."""

from fedcore.dialogues.scene import Scene

_CHORES = (
    "wash the dishes",
    "clean the bathroom",
    "take out the trash",
    "feed the cat",
    "walk the dog",
    "cook dinner",
    "fold the laundry",
    "buy bread",
    "fix the door",
    "paint the fence",
    "water the plants",
    "call grandma",
    "pay the rent",
    "vacuum the stairs",
    "make the beds",
)


def play(scene: Scene) -> str:
    host, second, third = scene.name(), scene.name(), scene.name()
    first_chore, other_chore = scene.two(_CHORES)
    scene.say(
        host,
        "We have to share the work at home.",
        "The house is a mess, everybody helps now.",
        f"{second}, {third}, listen, there is work to do.",
    )
    scene.say(host, f"{second}, can you {first_chore}?", f"{second}, please {first_chore}.")
    swapped = scene.chance(0.4)
    if swapped:
        scene.say(second, f"Not me! I would rather {other_chore}.", f"No, I will {other_chore}.")
        scene.say(third, f"Fine, then I {first_chore}.", f"OK, I can {first_chore} instead.")
        jobs = {second: other_chore, third: first_chore}
    else:
        scene.say(second, "All right, I will.", "Yes, of course.", "If I must.")
        scene.digress(second, third)
        scene.say(host, f"And {third}, you {other_chore}.", f"{third} can {other_chore}.")
        if scene.chance(0.4):
            scene.say(third, f"I have no time. Can you {other_chore}?", "I really cannot today.")
            scene.say(host, "Fine, I will do that myself.", f"OK, then I {other_chore}.")
            jobs = {second: first_chore, host: other_chore}
        else:
            scene.say(third, "No problem.", "Sure.", f"OK, I {other_chore}.")
            jobs = {second: first_chore, third: other_chore}
    scene.say(host, "By when?", "And when will it be done?", "It must be done soon.")
    day = scene.settle(second, host, scene.day)
    parts = [f"{who} will {job}" for who, job in jobs.items()]
    return f"{' and '.join(parts)} by {day}."
