"""Errors that a user can cause and mend. Each message says where, what was got, what to do."""


class ProAssistError(ValueError):
    """Base of every error a user can cause: printed without a traceback by the commands."""


class ConfigError(ProAssistError):
    """A setting is misspelt, out of range, or contradicts another one."""


class OtherJobError(ConfigError):
    """The directory of a job holds what it cannot go on with; it is left as it is."""


class RecordError(ProAssistError):
    """A conversation record or annotation file is wrong: names file, line, turn and remedy."""


class FeatureError(RecordError):
    """A feature file is missing, too short, or of another width than the model's.

    Names the record that asks for it, where there is one.
    """


class VideoError(ProAssistError):
    """A video is missing, damaged, cut off, or holds no pictures: names the file and the time."""


class CheckpointError(ProAssistError):
    """A checkpoint is missing, incomplete, or does not fit the model."""


class TrainingError(ProAssistError):
    """Training cannot go on: names the step, the conversations, and what to go on from."""


class StreamError(ProAssistError):
    """A stream cannot be processed: names the stream and the frame."""


class ContextError(StreamError):
    """What a stream says, or is told, does not fit into its context any more."""


class JudgeError(ProAssistError):
    """A judge cannot be asked, or its answers cannot be kept."""
