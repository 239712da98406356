"""METEOR 1.5, by its authors' Java program."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from proassist_lit.errors import ConfigError

PACKAGE = "pycocoevalcap"
"""The package that carries the program and its paraphrases (100 MB); it is never imported."""

TIMEOUT_S = 600


class Meteor:
    """Scores texts with METEOR; several seconds a call, in which it reads its paraphrases.

    Raises:
        ConfigError: Java or the program is missing.

    Source: Denkowski and Lavie 2014, with the options of the COCO caption evaluation.
    """

    def __init__(self) -> None:
        java, jar = shutil.which("java"), _jar()
        missing = [
            name
            for name, found in (("java, on the path", java), (f"the package {PACKAGE}", jar))
            if found is None
        ]
        if java is None or jar is None:
            raise ConfigError(
                f"evaluation.meteor needs {' and '.join(missing)}; pip install -e '.[meteor]' in "
                "the repository, install a Java runtime, or set evaluation.meteor=false."
            )
        self._command = [java, "-Xmx2G", "-jar", str(jar)]

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Corpus score in [0, 1].

        Args:
            hypotheses: (n) texts, words parted by spaces.
            references: (n) references of each, as many of every text.

        Raises:
            ConfigError: the program failed, with its words, or did not end in time.
        """
        with tempfile.TemporaryDirectory() as folder:
            tested, wanted = Path(folder, "tested"), Path(folder, "wanted")
            tested.write_text("".join(f"{_line(text)}\n" for text in hypotheses), "utf-8")
            wanted.write_text(
                "".join(f"{_line(text)}\n" for texts in references for text in texts), "utf-8"
            )
            count = len(references[0])
            try:
                done = subprocess.run(
                    [*self._command, tested, wanted, "-l", "en", "-norm", "-r", str(count)],
                    capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise _failure(f"did not end within {TIMEOUT_S} s") from error
        found = re.search(r"^Final score:\s+(\S+)\s*$", done.stdout, re.MULTILINE)
        if done.returncode or found is None:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise _failure(f"failed with code {done.returncode}: {' '.join(said)}")
        return float(found[1])


def _failure(what: str) -> ConfigError:
    return ConfigError(
        f"evaluation.meteor: the program {what}; set evaluation.meteor=false to go on without."
    )


def _jar() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        path = Path(location, "meteor", "meteor-1.5.jar")
        if path.is_file():
            return path
    return None


def _line(text: str) -> str:
    return " ".join(text.split())
