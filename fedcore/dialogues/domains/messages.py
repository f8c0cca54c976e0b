"""Messages left for somebody: their words are open, so they can only be copied."""

from fedcore.dialogues.scene import Scene

_VERBS = (
    "bring",
    "find",
    "sell",
    "clean",
    "hide",
    "measure",
    "paint",
    "return",
    "wrap",
    "sign",
    "replace",
    "review",
    "keep",
    "check",
    "file",
    "report",
    "describe",
    "collect",
    "take",
    "use",
    "start",
    "stop",
    "apply",
    "reduce",
    "reject",
    "request",
    "gather",
    "send",
    "change",
    "tighten",
    "rebuild",
    "fit",
    "swap",
    "align",
    "mount",
    "seek",
    "have",
    "get",
)


def _errand(scene: Scene) -> str:
    size = scene.one(("old", "big", "new", "second", "small", "heavy", "spare", "last"))
    noun = f"{scene.word()} {scene.word()}" if scene.chance(0.4) else scene.word()
    tail = "" if scene.chance(0.6) else f" from {scene.city()}"
    return f"{scene.one(_VERBS)} the {size} {noun}{tail}"


def play(scene: Scene) -> str:
    caller, taker, absent = scene.name(), scene.name(), scene.name()
    scene.say(caller, f"Hi, is {absent} there?", f"Hello, I am calling for {absent}.")
    scene.say(taker, f"No, {absent} is out. Can I take a message?", "Not now. Shall I note it?")
    task = scene.settle(caller, taker, lambda: _errand(scene))
    scene.digress(caller, taker)
    if scene.chance(0.5):
        other = _errand(scene)
        scene.say(caller, f"Also, {absent} should {other}.", f"And then {other}.")
        task = f"{task} and {other}"
    if scene.chance(0.5):
        number = scene.count(1000, 9999)
        scene.say(taker, "What is your number?", "How can we reach you?")
        scene.say(caller, f"My number is {number}.", f"Call {number}.")
        return f"{caller} asks {absent} to {task} and call {number}."
    scene.thank(caller)
    return f"{caller} asks {absent} to {task}."
