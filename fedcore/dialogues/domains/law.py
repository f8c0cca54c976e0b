"""A law office, held out. Its summaries are file entries: matter, client, advice, deadline."""

from fedcore.dialogues.scene import Scene

HELD_OUT = True

_MATTERS = (
    "unpaid wages",
    "an eviction notice",
    "a breach of contract",
    "a disputed will",
    "custody of the children",
    "a forged signature",
    "a trademark infringement",
    "an unfair dismissal",
    "a withheld deposit",
    "defamation",
    "a boundary dispute",
)
_OPPONENTS = (
    "the landlord",
    "the employer",
    "the insurer",
    "a former partner",
    "the municipality",
    "the contractor",
    "the publisher",
    "a neighbour",
    "the bank",
)
_ADVICE = (
    "sue at once",
    "seek a settlement",
    "file an appeal",
    "request mediation",
    "send a warning",
    "gather witness statements",
    "reject the offer",
    "terminate the agreement",
    "sign nothing",
)


def play(scene: Scene) -> str:
    lawyer, client = scene.name(), scene.name()
    surname = scene.surname()
    matter, opponent = scene.one(_MATTERS), scene.one(_OPPONENTS)
    amount = scene.price(500, 9000)
    scene.say(
        lawyer,
        f"Attorney {lawyer}, legal office. You are {client} {surname}?",
        f"Please sit down, {client} {surname}. I am your counsel.",
    )
    scene.say(
        client,
        f"Yes. It concerns {matter}. {opponent} is against me.",
        f"I am in a lawsuit with {opponent} about {matter}.",
        f"{opponent} accuses me, it is about {matter}.",
    )
    scene.digress(client, lawyer, 0.3)
    scene.say(lawyer, "What sum is at stake?", "How large is the claim?")
    other = scene.fresh(lambda: scene.price(500, 9000), amount)
    scene.say(
        client,
        f"It is {amount}.",
        f"They offered {other}, but the claim is {amount}.",
        f"Not {other} as they write, it is {amount}.",
    )
    dropped, advice = scene.two(_ADVICE)
    if scene.chance(0.5):
        scene.say(client, f"Should I {dropped}?", f"I would like to {dropped}.")
        scene.say(
            lawyer, f"I advise against that. Better {advice}.", f"No court likes it. {advice}."
        )
    else:
        scene.say(
            lawyer, f"My legal advice is to {advice}.", f"Under the statute you can {advice}."
        )
    scene.say(lawyer, "Now the deadline for the documents.", "The court sets a deadline.")
    date = scene.settle(client, lawyer, scene.date)
    return (
        f"Client: {client} {surname}. Problem: {matter} against {opponent}. "
        f"Claim: {amount}. Plan: {advice}. Deadline: {date}."
    )
