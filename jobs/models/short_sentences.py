"""Short sentences written for this project, to see how a model behaves on texts far shorter than it was trained on."""

POSITIVE = (
    "A wonderful film, I loved every minute.",
    "Great movie!",
    "The best comedy I have seen in years.",
    "Beautiful, moving and superbly acted.",
    "Not bad at all.",
    "I couldn't stop laughing.",
    "Highly recommended.",
    "One of my favourite films of all time.",
    "It is a small gem.",
    "My kids want to see it again.",
    "She gives an excellent performance.",
    "10/10",
)
NEGATIVE = (
    "A terrible film, I hated every minute.",
    "Boring.",
    "The worst comedy I have seen in years.",
    "Dull, predictable and badly acted.",
    "Not good at all.",
    "I fell asleep after twenty minutes.",
    "Avoid at all costs.",
    "What a waste of time and money.",
    "It makes no sense.",
    "My kids wanted to leave.",
    "He gives an awful performance.",
    "2/10",
)
# Nothing here says what the writer thought of a film, or it cannot be read: none may be judged with confidence.
UNDECIDABLE = (
    "",
    "   ",
    "<br /><br />",
    "👍👍👍",
    "?!",
    "42",
    "I saw it last night.",
    "The film is about a family in Boston.",
    "Una película preciosa, la vería otra vez con mi hermana.",
    "Der Film war leider ziemlich langweilig und viel zu lang.",
    "Un film magnifique, les acteurs sont très justes.",
    "「海の色」はとても面白かったです。",
    "Очень скучный фильм.",
)
