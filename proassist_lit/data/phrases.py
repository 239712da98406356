"""Wordings: a dozen or so for every act, so that no assistant is learnt by heart.

Fields in braces are filled by the dialogue writer: ``task``, ``id`` and ``step`` (id and name of
the next step; some people count along, some don't), ``done`` (the step just finished), ``wrong``
and ``right`` (of a mistake), ``tool``, ``item``, ``count``, ``total``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SYSTEM_PROMPTS = (
    "You are a proactive assistant. Watch the work and speak up at the right moment.",
    "You watch a person at work and guide them without being asked.",
    "You are a helpful and proactive assistant; stay silent unless there is something to say.",
    "Guide the user step by step, and correct mistakes as soon as you see them.",
    "You are an attentive assistant who follows the work through the camera.",
    "Help the user through the task: instruct, confirm, correct, and otherwise keep quiet.",
)

GOAL = (
    "I want to {task}.",
    "Hi, I would like to {task}.",
    "Today I am going to {task}.",
    "Can you help me {task}?",
    "Hello! Please guide me: I want to {task}.",
    "I am trying to {task}. Can you help?",
    "Let us {task} together.",
    "My plan is to {task}.",
    "Could you show me how to {task}?",
    "I need to {task}. Where do I start?",
    "Hey, I have everything here to {task}.",
    "I'd love to {task}, please help me.",
)

FIRST = (
    "Great, let's start. First, {step}.",
    "Good idea! To begin, {id}: {step}.",
    "Let's get going: first {step}.",
    "Happy to help. Start with {id}: {step}.",
    "Sure! Your first job is {id}: {step}.",
    "All right. At first, please {step}.",
    "Let's do it. Begin with {id}: {step}.",
    "Nice plan! For a start, {step}.",
    "Of course. The first thing is to {step}.",
    "With pleasure. Please {step} first.",
    "Let us begin. Please {step}.",
    "Okay, {id}: {step}.",
)

NEXT = (
    "Well done, you managed to {done}. Now {step}.",
    "Good job! Done: {done}. Next, {id}: {step}.",
    "Finished: {done}. Now please {step}.",
    "Perfect, no need to {done} any more. The next step is {id}: {step}.",
    "Great work, that was how to {done}. Go on and {step}.",
    "Very good, I saw you {done}. Then {id}: {step}.",
    "Nicely done! You could {done}. After that, {id}: {step}.",
    "That looks right: {done}. Now you can {step}.",
    "Excellent, ready: {done}. Continue with {id}: {step}.",
    "Done, you did {done}! Next you should {step}.",
    "Good, after {done} we can move on to {id}: {step}.",
    "Lovely, enough of {done}. Now it is time to {step}.",
)

GO_ON = (
    "Well done: {done}. Keep going with what you are doing.",
    "That part is finished: {done}. Carry on.",
    "Good, {done} is done. Please go on.",
    "You managed to {done}. Continue with the rest.",
    "Nice, {done} is ready. Keep at it.",
    "One thing less: {done}. Go on like this.",
    "All right, {done} is behind you. Keep working.",
    "{done}: done. You may go on.",
)

FINISH = (
    "All done! You managed to {task}.",
    "That was the last step. You did {task}, well done!",
    "Finished! It was great work to {task}.",
    "Perfect, everything is done now to {task}.",
    "Congratulations, nothing more to do to {task}.",
    "That's it, nothing is left to {task}.",
    "Wonderful, you are finished: you could {task}.",
    "Great, this was all you need to {task}.",
    "Everything is ready. That was how to {task}.",
    "Well done, that was all of it to {task}.",
    "The work is complete. You know how to {task}!",
    "You made it! No steps are left to {task}.",
)

CORRECT = (
    "Wait, I see {wrong}. Please {right}.",
    "Stop, you are using {wrong}. Please {right}.",
    "Careful: I see {wrong}. You should {right}.",
    "Hold on! I see {wrong}. Instead, {right}.",
    "Not quite, I see {wrong}. Better {right}.",
    "Oops, you took {wrong}. Please {right} instead.",
    "One moment, I see {wrong}. Please {right}.",
    "That is not right, there is {wrong}. Please {right}.",
    "Hmm, this looks like {wrong}. You need to {right}.",
    "Please stop, you took {wrong}. Now {right}.",
    "There is a mistake: {wrong}. Do this: {right}.",
    "Let me correct you: {wrong}. Please {right}.",
)

SKIPPED = (
    "You left something out: {step}.",
    "Wait, one step is missing: {step}.",
    "I think you forgot to {step}.",
    "Before you go on, you should {step}.",
    "Don't forget to {step}.",
    "You skipped a step. Please {step}.",
    "One thing was not done: {step}.",
    "Please go back and {step}.",
)

ASK_TOOL = (
    "Which tool do I need?",
    "What should I use for this?",
    "What do I do this with?",
    "Remind me, which tool is it?",
    "What tool was that again?",
    "With what do I do it?",
    "Sorry, which tool do I take?",
    "What do I need in my hand now?",
)

ANSWER_TOOL = (
    "Use the {tool}.",
    "You need the {tool}.",
    "Take the {tool} for it.",
    "The {tool} is the right one.",
    "Please use the {tool} here.",
    "That is the {tool}.",
    "Work with the {tool}.",
    "For this you use the {tool}.",
)

ASK_ITEM = (
    "Which one was it?",
    "What do I work on now?",
    "Which thing do I take?",
    "Remind me, what is it that I need?",
    "What was I supposed to take?",
    "Which one do you mean?",
    "What comes under my hands now?",
    "Which thing was it again?",
)

ANSWER_ITEM = (
    "You work on {item}.",
    "Take {item}.",
    "I mean {item}.",
    "You need {item} now.",
    "It is about {item}.",
    "Please work on {item}.",
    "Go for {item}.",
    "Now it is {item}.",
)

ASK_COUNT = (
    "How far are we?",
    "How many steps have I done?",
    "Am I making progress?",
    "How much is done already?",
    "Where are we?",
    "How is it going?",
    "How much have I done so far?",
    "Are we getting anywhere?",
)

ANSWER_COUNT = (
    "You have done {count} of {total} steps.",
    "{count} of {total} steps are finished.",
    "We are at {count} of {total}.",
    "So far {count} of {total} are done.",
    "{count} out of {total} steps are complete.",
    "That makes {count} of {total} steps.",
    "You are through {count} of {total} steps.",
    "By now {count} of {total} steps are behind us.",
)

REMARKS = (
    "Hm, let me see.",
    "Okay, I am on it.",
    "This is fun.",
    "Give me a second.",
    "I'll take my time here.",
    "The light is a bit dim today.",
    "Almost forgot how this goes.",
    "Alright.",
    "It is quiet in here.",
    "Good thing I have time.",
    "Let me look around.",
    "Hm, interesting.",
)
"""Said by the user to nobody: the right answer is silence."""


def pick(wordings: Sequence[str], rng: np.random.Generator) -> str:
    """One of the wordings, each as likely as the others."""
    return wordings[int(rng.integers(len(wordings)))]
