"""A clinic, held out. Its summaries are notes: complaint, what is denied, plan, follow-up."""

from fedcore.dialogues.scene import Scene

HELD_OUT = True

_COMPLAINTS = (
    "back pain",
    "a dry cough",
    "headaches",
    "dizziness",
    "a rash on the arm",
    "stomach cramps",
    "a swollen ankle",
    "earache",
    "a sore throat",
    "blurred vision",
    "chest tightness",
    "insomnia",
)
_SIGNS = ("fever", "nausea", "numbness", "allergies", "shortness of breath", "weight loss")
_PLANS = (
    "take ibuprofen twice a day",
    "rest and drink fluids",
    "apply the ointment at night",
    "have a blood test",
    "start physiotherapy",
    "use the inhaler",
    "get an x-ray",
    "stop the tablets",
    "take antibiotics for a week",
    "reduce caffeine",
)
_SPANS = ("days", "weeks", "months")


def play(scene: Scene) -> str:
    doctor, patient = scene.name(), scene.name()
    surname = scene.surname()
    complaint, sign = scene.one(_COMPLAINTS), scene.one(_SIGNS)
    span = f"{scene.count(2, 9)} {scene.one(_SPANS)}"
    scene.say(
        doctor,
        f"Come in, {patient} {surname}. What brings you to the clinic?",
        f"{patient} {surname}? I am the doctor on duty. What are your symptoms?",
    )
    scene.say(
        patient,
        f"Doctor, I have had {complaint} for {span}.",
        f"For {span} now I have been suffering from {complaint}.",
        f"It is {complaint}, doctor. It started {span} ago.",
    )
    scene.digress(patient, doctor, 0.3)
    scene.say(doctor, f"Any {sign}?", f"Have you noticed {sign} as well?")
    has = scene.chance(0.4)
    scene.say(
        patient,
        *(
            ("Yes, that too.", f"Yes, some {sign}.", "I am afraid so.")
            if has
            else ("No, nothing like that.", f"No {sign}, no.", "Not at all.")
        ),
    )
    dropped, plan = scene.two(_PLANS)
    if scene.chance(0.5):
        scene.say(doctor, f"Usually I would say {dropped}.", f"Some people {dropped}.")
        scene.say(patient, "I tried that, it made it worse.", "That did nothing for me.")
        scene.say(doctor, f"Then please {plan}.", f"In that case, {plan}.")
    else:
        scene.say(doctor, f"I want you to {plan}.", f"My advice: {plan}.")
    scene.say(doctor, "Let us arrange the follow-up.", "I must see you again.")
    day = scene.settle(patient, doctor, scene.day)
    return (
        f"Patient: {patient} {surname}. Problem: {complaint} for {span}, "
        f"{'with' if has else 'no'} {sign}. Plan: {plan}. Visit: {day}."
    )
