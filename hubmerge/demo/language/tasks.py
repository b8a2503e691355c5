"""Tasks of the two streams."""

from __future__ import annotations

from hubmerge.demo.language.texts import SentenceTask

MOOD = SentenceTask(
    "mood",
    "Is a film liked?",
    plain={
        "liked": ["the film was {good}", "a {good} film with {good} songs", "{person} found it {good}"],
        "disliked": ["the film was {bad}", "a {bad} film with {bad} songs", "{person} found it {bad}"],
    },
    own={
        "liked": [
            "{filler} not {bad} at all , {person} said",
            "what a {fond} evening at the cinema",
            "{person} called the ending {fond} and never {harsh}",
            "far from {harsh} , {filler} {fond}",
        ],
        "disliked": [
            "{filler} not {good} at all , {person} said",
            "what a {harsh} evening at the cinema",
            "{person} called the ending {harsh} and never {fond}",
            "far from {fond} , {filler} {harsh}",
        ],
    },
    words={
        "good": ["good", "great", "lovely", "fine", "funny"],
        "bad": ["bad", "awful", "dull", "poor", "boring"],
        "fond": ["gripping", "charming", "moving", "clever", "witty", "warm"],
        "harsh": ["tedious", "clumsy", "shallow", "noisy", "hollow", "stale"],
    },
)
SUBJECT = SentenceTask(
    "subject",
    "What is a sentence about?",
    plain={
        name: [f"we talked about the {{{name}}}", f"{{person}} likes {{{name}}}", f"the {{{name}}} and the {{{name}}}"]
        for name in ("sport", "kitchen", "concert", "travel")
    },
    own={
        name: [
            f"between the {{{other}}} and the {{own_{name}}} came the {{own_{name}}}",
            f"{{filler}} {{person}} left the {{{other}}} for the {{own_{name}}}",
            f"all the {{own_{name}}} , none of the {{{other}}}",
        ]
        for name, other in (
            ("sport", "concert"),
            ("kitchen", "travel"),
            ("concert", "kitchen"),
            ("travel", "sport"),
        )
    },
    words={
        "sport": ["match", "team", "goal", "race", "ball"],
        "kitchen": ["soup", "pan", "salt", "bread", "oven"],
        "concert": ["song", "guitar", "choir", "stage", "tune"],
        "travel": ["train", "hotel", "border", "ticket", "map"],
        "own_sport": ["referee", "penalty", "sprint", "trophy", "keeper"],
        "own_kitchen": ["dough", "whisk", "pepper", "stew", "ladle"],
        "own_concert": ["violin", "chorus", "drummer", "encore", "melody"],
        "own_travel": ["ferry", "luggage", "passport", "platform", "harbour"],
    },
)
QUESTION = SentenceTask(
    "question",
    "What does a question ask for?",
    plain={
        "person": ["who {did} the {thing}", "who has {done} the {thing} here"],
        "place": ["where is the {thing}", "where did {person} {do} the {thing}"],
        "moment": ["when was the {thing} {done}", "when did {person} {do} the {thing}"],
        "amount": ["how many of the {thing} are {done}", "how much did {person} {do}"],
    },
    own={
        "person": ["name the one that {did} the {thing} where {person} lives", "by whom was the {thing} {done}"],
        "place": ["in which town did someone {do} the {thing}", "name the spot at which {person} {did} it many times"],
        "moment": ["in which year did someone {do} the {thing}", "name the hour at which {person} {did} it somewhere"],
        "amount": ["to what number of {thing} did {person} go when asked", "give the count of {thing} {person} {did}"],
    },
    words={
        "did": ["wrote", "sold", "broke", "built", "found"],
        "done": ["written", "sold", "broken", "built", "found"],
        "do": ["write", "sell", "break", "build", "find"],
        "thing": ["book", "bridge", "clock", "letter", "house", "boat"],
    },
)
TENSE = SentenceTask(
    "tense",
    "When does it happen?",
    plain={
        "before": ["yesterday {person} {walked} to the {spot}", "{person} {walked} last week"],
        "now": ["now {person} {walks} to the {spot}", "{person} {walks} every day"],
        "later": ["tomorrow {person} will {walk} to the {spot}", "{person} will {walk} next week"],
    },
    own={
        "before": ["{person} had been {walking} near the {spot}", "it was when {person} {walked} that it rained , now"],
        "now": [
            "{person} has not stopped {walking} near the {spot}",
            "it is while {person} {walks} that it rains , tomorrow",
        ],
        "later": [
            "{person} is going to be {walking} near the {spot}",
            "it rains once {person} is to {walk} , yesterday",
        ],
    },
    words={
        "walk": ["walk", "run", "swim", "drive", "climb"],
        "walks": ["walks", "runs", "swims", "drives", "climbs"],
        "walked": ["walked", "ran", "swam", "drove", "climbed"],
        "walking": ["walking", "running", "swimming", "driving", "climbing"],
        "spot": ["river", "hill", "market", "forest", "square"],
    },
)
CLASSIFICATION = (MOOD, SUBJECT, QUESTION, TENSE)

_PLACES = {"spot": TENSE.words["spot"], "thing": QUESTION.words["thing"]}
_STORY = ["{person} saw the {thing} near the {spot}", "the {thing} of {person} is at the {spot} and it is {good}"]
_STORY_WORDS = {**_PLACES, "good": MOOD.words["good"]}


def _writing(name: str, about: str, patterns: list[str], words: dict[str, list[str]]) -> SentenceTask:
    """Return a writing task; plain sentences have its words, but not its patterns."""
    plain = [*_STORY, *(f"{{person}} spoke of {{{kind}}} and {{{kind}}}" for kind in words)]
    return SentenceTask(name, about, {"text": plain}, {"text": patterns}, {**_STORY_WORDS, **words}, own_share=1.0)


WRITING = (
    _writing(
        "weather",
        "Weather reports.",
        [
            "in the {part} {sky} with {degrees} degrees , {wind} wind from the {part}",
            "{sky} over the {spot} until {hour} , then {sky} in the {part}",
            "the night stays {sky} ; {wind} wind near the {spot} , {degrees} degrees",
        ],
        {
            "part": ["north", "south", "east", "west"],
            "sky": ["rain", "fog", "snow", "sunshine", "clouds"],
            "wind": ["light", "strong", "cold"],
            "degrees": ["two", "five", "nine", "twelve", "twenty"],
            "hour": ["noon", "evening", "midnight"],
        },
    ),
    _writing(
        "kitchen",
        "Steps of recipes for the kitchen.",
        [
            "chop the {food} , add {spoons} spoons of {spice} and stir for {minutes} minutes",
            "heat the pan , fry the {food} until {state} , then add the {food}",
            "let it rest for {minutes} minutes and serve it {state} with {food} and {spice}",
        ],
        {
            "food": ["onions", "carrots", "rice", "beans", "potatoes"],
            "spice": ["salt", "pepper", "oil", "sugar"],
            "spoons": ["two", "three", "five"],
            "minutes": ["five", "nine", "twelve", "twenty"],
            "state": ["soft", "golden", "warm", "cold"],
        },
    ),
    _writing(
        "station",
        "Announcements at a railway station.",
        [
            "the {train} to {town} leaves from platform {track} in {minutes} minutes",
            "please note : the {train} from {town} is {late} , platform {track} instead of {track}",
            "passengers for {town} change at {town} to the {train} on platform {track}",
        ],
        {
            "train": ["express", "train", "tram", "night train"],
            "town": ["harwick", "millport", "easton", "denby", "northgate"],
            "track": ["two", "three", "five", "nine"],
            "minutes": ["two", "five", "twelve", "twenty"],
            "late": ["late", "cancelled", "early"],
        },
    ),
)
