"""School: homework, marks and excuses."""

from fedcore.dialogues.scene import Scene

_SUBJECTS = (
    "history",
    "maths",
    "biology",
    "music",
    "French",
    "geography",
    "physics",
    "art",
    "chemistry",
)
_TASKS = ("essay", "poster", "project", "presentation", "drawing", "experiment", "exercise")
_EXCUSES = (
    "was ill",
    "lost the book",
    "missed the bus",
    "forgot the homework",
    "had a concert",
    "broke an arm",
    "had no internet",
    "slept too long",
)


def play(scene: Scene) -> str:
    teacher, pupil = scene.name(), scene.name()
    subject, task = scene.one(_SUBJECTS), scene.one(_TASKS)
    scene.say(
        teacher,
        f"{pupil}, where is your {subject} {task}?",
        f"The {task} for {subject} was due, {pupil}.",
    )
    excuse = scene.one(_EXCUSES)
    scene.say(pupil, f"Sorry, I {excuse}.", f"It is not ready because I {excuse}.")
    scene.digress(pupil, teacher)
    scene.say(teacher, "When can you hand it in?", "I give you more time. Until when?")
    day = scene.settle(pupil, teacher, scene.day)
    pages = scene.count(2, 12)
    scene.say(teacher, f"It must have {pages} pages.", f"I expect {pages} pages.")
    helper = scene.name()
    if scene.chance(0.5):
        scene.say(pupil, f"May {helper} help me?", f"Can I do it together with {helper}?")
        allowed = scene.chance(0.5)
        scene.say(
            teacher,
            *(
                ("Yes, you may.", "That is fine.")
                if allowed
                else ("No, alone.", "No, you must do it alone.")
            ),
        )
        ending = f" together with {helper}" if allowed else " alone"
    else:
        ending = ""
    scene.thank(pupil)
    return (
        f"{pupil} {excuse} and must hand in the {subject} {task} of {pages} pages by {day}{ending}."
    )
