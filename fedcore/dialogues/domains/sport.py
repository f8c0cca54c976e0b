"""A sports team: who plays, who cannot, who steps in."""

from fedcore.dialogues.scene import Scene

_GAMES = (
    "football",
    "tennis",
    "volleyball",
    "hockey",
    "chess",
    "rugby",
    "swimming",
    "handball",
    "basketball",
    "rowing",
)
_REASONS = (
    "a sore knee",
    "a wedding",
    "an exam",
    "a cold",
    "a night shift",
    "a sick child",
    "a broken bike",
    "visitors from abroad",
)


def play(scene: Scene) -> str:
    coach, player, substitute = scene.name(), scene.name(), scene.name()
    game, town, reason = scene.one(_GAMES), scene.city(), scene.one(_REASONS)
    scene.say(
        coach, f"The {game} match against {town} is coming.", f"Next we play {game} against {town}."
    )
    scene.say(coach, "Which day suits everybody?", "We can still choose the day.")
    day = scene.settle(player, coach, scene.day)
    scene.digress(player, substitute)
    absent = scene.chance(0.7)
    if absent:
        scene.say(player, f"I cannot play, I have {reason}.", f"Without me, I have {reason}.")
        scene.say(coach, f"{substitute}, can you step in?", "Who can replace you?")
        scene.say(substitute, "I can play.", f"I will take the place of {player}.", "Sure, I can.")
        ending = f"{player} has {reason}, so {substitute} plays instead."
    else:
        scene.say(player, f"I had {reason}, but I can play again.", f"I can play despite {reason}.")
        scene.say(substitute, "Then I will watch.", "Good, so I stay on the bench.")
        ending = f"{player} can play and {substitute} watches."
    if scene.chance(0.5):
        hour = scene.settle(substitute, coach, scene.hour)
        return f"The {game} match against {town} is on {day} at {hour}. {ending}"
    return f"The {game} match against {town} is on {day}. {ending}"
