"""An office: meetings moved, tasks given."""

from fedcore.dialogues.scene import Scene

_TOPICS = (
    "budget",
    "launch",
    "new website",
    "audit",
    "survey",
    "hiring",
    "training",
    "newsletter",
    "annual report",
    "customer data",
    "marketing plan",
)
_TASKS = (
    "write the report",
    "prepare the slides",
    "book the room",
    "call the client",
    "send the invitation",
    "check the numbers",
    "order lunch",
    "collect the feedback",
)


def play(scene: Scene) -> str:
    lead, second, third = scene.name(), scene.name(), scene.name()
    topic = scene.one(_TOPICS)
    old = scene.day()
    scene.say(
        lead,
        f"The {topic} meeting on {old} has to move.",
        f"We cannot hold the {topic} meeting on {old}.",
    )
    scene.say(second, "When then?", "What is the new date?", "Oh, why? When do we meet?")
    new = scene.settle(lead, second, lambda: scene.fresh(scene.day, old))
    scene.digress(third, second)
    task, other = scene.two(_TASKS)
    scene.say(lead, f"Who can {task}?", f"Somebody has to {task}.", f"{second}, will you {task}?")
    if scene.chance(0.5):
        scene.say(second, "I can.", "I will do it.", f"Leave it to me, I {task}.")
        doer, spare = second, third
    else:
        scene.say(second, "I have no time.", "Not me, I am on holiday.", f"{third} should do it.")
        scene.say(third, "Then I will.", "OK, I do it.", f"Fine, I {task}.")
        doer, spare = third, second
    scene.say(lead, f"And {spare}, please {other}.", f"{spare} can {other}, then.")
    scene.say(spare, "Yes.", "OK.", "Will do.")
    return (
        f"The {topic} meeting moves from {old} to {new}. {doer} will {task} and "
        f"{spare} will {other}."
    )
