"""What a command line would run, as far as that can be said for certain. Pure; runs nothing, and is no shell.

It reads the part of the shell's grammar that is plain: words, quotes, `;`, `&&`, `||`, `|`, `&` and newlines. Of
everything else (expansions, substitutions, redirections, groups, keywords, comments) it notes a **doubt**: the line
may do more than its commands say. Nobody allows a line with doubts; a refusal needs no certainty.
"""

from __future__ import annotations

import re
import unicodedata

from kasmos.model.value import frozen

LONGEST = 20_000
"""Characters. Longer lines are for people."""

MOST_WORDS = 500
"""Words of one command; what has more is for people."""

_KEYWORDS = frozenset((
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "select",
    "function", "in", "time", "coproc", "!", "{", "}", "[[", "]]",
))  # fmt: skip
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[[^]]*\])?\+?=")
_HARMLESS = re.compile(r"(?:[12]?>>?[ \t]*/dev/null|<[ \t]*/dev/null|2>&1|1>&2|&>[ \t]*/dev/null)(?=$|[\s;|&])")
"""Redirections that touch no file."""


@frozen
class Command:
    """One simple command."""

    words: tuple[str, ...]
    """Program and arguments, without quotes."""
    assignments: tuple[str, ...] = ()
    """`NAME=value` before the program."""


@frozen
class Reading:
    """What a command line comes to."""

    commands: tuple[Command, ...]
    """In order."""
    doubts: tuple[str, ...] = ()
    """What could not be read, in words; empty when the commands are all there is."""


def read_command_line(text: str) -> Reading:
    """Read a command line."""
    if len(text) > LONGEST:
        return Reading((), (f"it is longer than {LONGEST} characters",))
    reader = _Reader(text)
    reader.read()
    commands = tuple(reader.commands)
    if any(len(command.words) > MOST_WORDS for command in commands):
        reader.doubt(f"a command of more than {MOST_WORDS} words")
    if not commands:
        reader.doubt("it has no command")
    return Reading(commands, tuple(dict.fromkeys(reader.doubts)))


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.commands: list[Command] = []
        self.doubts: list[str] = []
        self._words: list[str] = []
        self._assignments: list[str] = []
        self._word: list[str] | None = None
        """The letters of the word that is being read; None between words."""
        self._quoted = False
        """Whether any of it stood in quotes."""

    def doubt(self, why: str) -> None:
        self.doubts.append(why)

    def read(self) -> None:
        while self.at < len(self.text):
            self._step()
        self._end_command()

    def _step(self) -> None:
        letter = self.text[self.at]
        if letter in " \t":
            self._end_word()
        elif letter == "'":
            self._single()
            return
        elif letter == '"':
            self._double()
            return
        elif letter == "\\":
            self._escape()
            return
        elif self._word is None and (match := _HARMLESS.match(self.text, self.at)):
            self.at = match.end()
            return
        elif letter in "\n;|&":
            self._separate(letter)
            return
        else:
            self._plain(letter)
        self.at += 1

    def _plain(self, letter: str) -> None:
        if letter in "$`":
            self.doubt(f"an expansion or substitution ({letter})")
        elif letter in "<>":
            self.doubt(f"a redirection ({letter})")
        elif letter in "(){}":
            self.doubt(f"a group, a subshell or braces ({letter})")
        elif letter == "#" and self._word is None:
            self.doubt("a comment")
        elif unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cs", "Cn"):
            self.doubt(f"an invisible character (U+{ord(letter):04X})")
        if letter in "`(){}<>":
            # What is inside is read as commands of its own: a refusal may want to know of them.
            self._end_command()
        else:
            self._append(letter)

    def _append(self, letters: str, *, quoted: bool = False) -> None:
        if self._word is None:
            self._word = []
        self._word.append(letters)
        self._quoted |= quoted

    def _single(self) -> None:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            self.doubt("a quote that is not closed")
            end = len(self.text)
        self._append(self._seen(self.text[self.at + 1 : end]), quoted=True)
        self.at = end + 1

    def _double(self) -> None:
        self.at += 1
        found: list[str] = []
        while self.at < len(self.text) and (letter := self.text[self.at]) != '"':
            if letter in "$`":
                self.doubt(f"an expansion or substitution ({letter})")
            if letter == "\\" and self.text[self.at + 1 : self.at + 2] in ("$", "`", '"', "\\"):
                self.at += 1
                letter = self.text[self.at]
            elif letter == "\\" and self.text[self.at + 1 : self.at + 2] == "\n":
                self.doubt("a continued line")
            found.append(letter)
            self.at += 1
        if self.at >= len(self.text):
            self.doubt("a quote that is not closed")
        self._append(self._seen("".join(found)), quoted=True)
        self.at += 1

    def _escape(self) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if following in ("", "\n"):
            self.doubt("a continued line")
            self._end_word()
        else:
            self._append(self._seen(following), quoted=True)
        self.at += 2

    def _seen(self, letters: str) -> str:
        for letter in letters:
            if letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"):
                self.doubt(f"an invisible character (U+{ord(letter):04X})")
        return letters

    def _separate(self, letter: str) -> None:
        double = letter in "|&;" and self.text[self.at + 1 : self.at + 2] == letter
        if letter == ";" and double:
            self.doubt("a case (;;)")
        if self.text[self.at : self.at + 2] in ("|&", "&>", "&|"):
            self.doubt(f"a redirection ({self.text[self.at : self.at + 2]})")
        had = self._end_command()
        if not had and letter != "\n" and self.text[: self.at].strip():
            # `;` after a newline, `&& &&`: no shell takes it, and we do not guess.
            self.doubt(f"nothing before {letter}")
        self.at += 2 if double else 1

    def _end_word(self) -> None:
        if self._word is None:
            return
        word, quoted = "".join(self._word), self._quoted
        self._word, self._quoted = None, False
        if not self._words:
            if _ASSIGNMENT.match(word):
                self._assignments.append(word)
                return
            if not quoted and word in _KEYWORDS:
                self.doubt(f"a word of the shell's own ({word})")
            if not word or word[0] in "=~" or any(letter in "*?[]" for letter in word):
                self.doubt("a program whose name is a pattern")
        self._words.append(word)

    def _end_command(self) -> bool:
        self._end_word()
        had = bool(self._words or self._assignments)
        if had:
            self.commands.append(Command(tuple(self._words), tuple(self._assignments)))
        self._words, self._assignments = [], []
        return had
