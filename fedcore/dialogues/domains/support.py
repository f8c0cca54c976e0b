"""Technical support: what is broken, what was tried, what helped."""

from fedcore.dialogues.scene import Scene

_DEVICES = (
    "printer",
    "laptop",
    "phone",
    "router",
    "screen",
    "keyboard",
    "camera",
    "tablet",
    "speaker",
)
_FAULTS = (
    "does not turn on",
    "keeps freezing",
    "makes a strange noise",
    "is very slow",
    "shows a blue screen",
    "loses the connection",
    "does not print",
    "gets too hot",
)
_REMEDIES = (
    "restart it",
    "update the software",
    "change the cable",
    "remove the battery",
    "reset the password",
    "clean the fan",
    "delete the old files",
    "install a new driver",
)


def play(scene: Scene) -> str:
    caller, agent = scene.name(), scene.name()
    device, fault = scene.one(_DEVICES), scene.one(_FAULTS)
    failed, helps = scene.two(_REMEDIES)
    scene.say(agent, f"Support, {agent} speaking.", "Help desk, what is the problem?")
    scene.say(
        caller,
        f"My {device} {fault}.",
        f"Hello, {caller} here. The {device} {fault}.",
        f"It is about my {device}. It {fault}.",
    )
    scene.digress(caller, agent)
    scene.say(agent, f"Did you try to {failed}?", f"Please {failed} first.")
    scene.say(caller, "I did, it did not help.", "That changed nothing.", "Still the same.")
    scene.say(agent, f"Then {helps}.", f"In that case, {helps}.", f"You should {helps}.")
    if scene.chance(0.5):
        scene.say(caller, "It works now!", "Yes, that helped.", "Oh, now it is fine.")
        scene.thank(caller)
        ending = "which solves it"
    else:
        scene.say(caller, "No, no change.", f"It still {fault}.", "That does not help either.")
        scene.say(agent, "We will send somebody. When are you at home?", "A technician must come.")
        day = scene.settle(caller, agent, scene.day)
        ending = f"but a technician must come on {day}"
    return f"The {device} of {caller} {fault}. {agent} says to {helps}, {ending}."
