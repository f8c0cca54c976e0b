"""Forms filled in together: fields and answers are open, and the summary is the filled form."""

from collections.abc import Callable

from fedcore.dialogues.scene import Scene


def _answer(scene: Scene) -> Callable[[], str]:
    """How the answers to one field are drawn."""

    def things() -> str:
        return f"{scene.word()} {scene.word()}"

    def phrase() -> str:
        return f"{scene.word()} with {scene.count(2, 9)} {scene.word()} and {scene.word()}"

    def money() -> str:
        return scene.price(20, 900)

    def person() -> str:
        return f"{scene.name()} {scene.surname()}"

    kinds = (scene.day, scene.date, scene.hour, scene.city, money, person, things, phrase)
    return scene.rng.choice(kinds)


def play(scene: Scene) -> str:
    clerk, caller = scene.name(), scene.name()
    scene.say(
        clerk,
        "Let us fill in the form.",
        "I need some answers for the file.",
        f"Ready, {caller}? I will write everything down.",
    )
    filled: list[str] = []
    digression = scene.rng.randrange(4)
    for number in range(scene.rng.randint(3, 4)):
        field = scene.word()
        draw = _answer(scene)
        scene.say(clerk, f"What about the {field}?", f"Next, the {field}.", f"The {field}, please?")
        if scene.chance(0.3):
            answer = scene.settle(caller, clerk, draw)
        else:
            answer = draw()
            scene.say(
                caller,
                f"{answer}.",
                f"That is {answer}.",
                f"Please write {answer}.",
                f"It was {scene.fresh(draw, answer)}, now it is {answer}.",
            )
        if number == digression:
            scene.digress(caller, clerk)
        filled.append(f"{field.capitalize()}: {answer}.")
    return " ".join(filled)
