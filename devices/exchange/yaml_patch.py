"""Other values in a YAML file that a person writes: only what differs is written, so that all else stays as it is.

What is removed takes the comments inside it along; comments above it stay.

Does not guard against: anchors, tags and merge keys. A text that would not say what it should is refused, not written.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from devices.yaml_file import plain_values

LONGEST_LINE = 120  # of what stands in one line
WIDEST = 200  # where a line is broken
INDENT = 2  # of each level of what is new
Comments = Mapping[tuple[str, ...], str]  # of one line, by the keys of the entry above which each stands
TOP, DEEP = -1, 99  # levels: of a whole site, and of what stands in one line whatever its length


def is_same(one: Any, other: Any) -> bool:
    """Return whether two plain values are the same in YAML: true is not 1, and the order of keys does not matter."""
    return canonical(one) == canonical(other)


def canonical(value: Any) -> str:
    """Return a text that plain values share if they are the same in YAML."""
    return json.dumps(value, sort_keys=True)


def parse(text: str) -> Any:
    """Return the plain values of a YAML 1.2 text. Raises YAMLError."""
    return plain_values(YAML(typ="rt", pure=True).load(text))


def rendered(value: dict[str, Any], level: int = TOP, comments: Comments | None = None) -> str:
    """Return values as people write them: what is deep inside and short on one line. TOP is the level of a site."""
    made = CommentedMap({key: _laid_out(item, level + 1) for key, item in value.items()})
    for (*above, key), comment in (comments or {}).items():
        entries = made
        for name in above:
            entries = entries[name]
        if not entries.fa.flow_style():
            entries.yaml_set_comment_before_after_key(key, before=comment, indent=INDENT * len(above))
    return _dumped(made, WIDEST)


def patched(text: str, old: dict[str, Any], wanted: dict[str, Any], comments: Comments | None = None) -> str:
    """Return a YAML text with other values.

    Args:
        text: a block mapping.
        old: its values.
        wanted: those that it shall have; new keys come last.
        comments: they are written above what is new.

    Raises:
        ValueError: the text is written in a way in which its values cannot be changed one by one.
    """
    if is_same(old, wanted):
        return text
    ends = "\r\n" if "\r\n" in text else "\n"
    plain = text.replace("\r\n", "\n")
    plain += "" if plain.endswith("\n") else "\n"
    patch = _Patch(plain)
    patch.change(YAML(typ="safe", pure=True).compose(plain), old, wanted, TOP, comments or {})
    made = patch.text()
    try:
        is_right = is_same(parse(made), wanted)
    except YAMLError:
        is_right = False
    if not is_right:
        raise ValueError("its values cannot be changed one by one")
    return made.replace("\n", ends)


class _Patch:
    """Edits of a text: from where to where, and what stands there then."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._edits: list[tuple[int, int, str]] = []

    def text(self) -> str:
        """Return the text with all edits done, the last one first, so that places stay right."""
        text = self._text
        for (start, end, new), _ in sorted(
            ((edit, number) for number, edit in enumerate(self._edits)),
            key=lambda one: (one[0][0], one[0][1], one[1]),
            reverse=True,
        ):
            text = text[:start] + new + text[end:]
        return text

    def change(self, node: Node, old: Any, new: Any, level: int, comments: Comments) -> None:
        """Note what makes a new value of an old one, which a node of the text holds, with comments in it."""
        if isinstance(node, MappingNode) and isinstance(new, dict) and old and new:
            for (key, value), name in zip(node.value, old, strict=True):
                if name not in new or is_same(old[name], new[name]):
                    continue
                if self._is_nothing(value):
                    end = self._pair_end(key, value)
                    self._edits.append((end, end, f" {in_line(new[name])}"))
                else:
                    inside = {keys[1:]: text for keys, text in comments.items() if keys[0] == name and keys[1:]}
                    self.change(value, old[name], new[name], level + 1, inside)
            spans = [(key.start_mark.index, self._pair_end(key, value)) for key, value in node.value]
            added = {name: value for name, value in new.items() if name not in old}
            on_added = {keys: text for keys, text in comments.items() if keys[0] in added}
            self._entries(node, spans, [name in new for name in old], added, level, on_added)
        elif isinstance(node, SequenceNode) and isinstance(new, list) and any(is_kept := _are_kept(old, new)):
            spans = [(item.start_mark.index, self._end(item)) for item in node.value]
            self._entries(node, spans, is_kept, new[sum(is_kept) :], level, {})
        else:
            self._edits.append((node.start_mark.index, self._end(node), in_line(new)))

    def _entries(
        self,
        node: Any,
        spans: Sequence[tuple[int, int]],
        is_kept: Sequence[bool],
        added: Any,
        level: int,
        comments: Comments,
    ) -> None:
        """Note the removal of some entries of a mapping or list, and the addition of others at its end."""
        if node.flow_style:
            self._flow_entries(node, spans, is_kept, in_line(added)[1:-1])
            return
        for (start, end), stays in zip(spans, is_kept, strict=True):
            if not stays:
                self._edits.append((self._text.rfind("\n", 0, start) + 1, self._line_end(end), ""))
        if added:
            is_list = isinstance(added, list)
            text = "".join(f"- {in_line(item)}\n" for item in added) if is_list else rendered(added, level, comments)
            place = self._line_end(spans[-1][1])
            self._edits.append((place, place, textwrap.indent(text, " " * node.start_mark.column)))

    def _flow_entries(self, node: Any, spans: Sequence[tuple[int, int]], is_kept: Sequence[bool], new: str) -> None:
        if not any(is_kept):
            self._edits.append((node.start_mark.index + 1, node.end_mark.index - 1, new))
            return
        for place, stays in enumerate(is_kept):
            if not stays and any(is_kept[place:]):
                self._edits.append((spans[place][0], spans[place + 1][0], ""))
            elif not stays:
                self._edits.append((spans[place - 1][1], spans[place][1], ""))
        if new:
            self._edits.append((spans[-1][1], spans[-1][1], f", {new}"))

    def _end(self, node: Any) -> int:
        """Return where the text of a node ends; what YAML takes for the end of a block is after its comments."""
        if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._pair_end(*last) if isinstance(node, MappingNode) else self._end(last)
        return int(node.end_mark.index)

    def _pair_end(self, key: Any, value: Any) -> int:
        return self._text.index(":", key.end_mark.index) + 1 if self._is_nothing(value) else self._end(value)

    @staticmethod
    def _is_nothing(node: Any) -> bool:
        """Return whether a value is null by not being there; its place is where the next thing is."""
        return bool(node.start_mark.index == node.end_mark.index)

    def _line_end(self, index: int) -> int:
        """Return where the line ends in which something ends; a block scalar ends with its line."""
        return index if self._text[index - 1] == "\n" else self._text.index("\n", index) + 1


def _are_kept(old: list[Any], new: list[Any]) -> list[bool]:
    """Return which items of a list begin another one, which has more at its end; none if it does not begin so."""
    texts, others = [canonical(item) for item in old], [canonical(item) for item in new]
    is_kept = [text in others for text in texts]
    kept = [text for text in texts if text in others]
    return is_kept if others[: len(kept)] == kept else [False] * len(old)


def in_line(value: Any) -> str:
    """Return the text of a value as it can stand anywhere in a line."""
    return _dumped(_laid_out({"k": value}, DEEP), 1 << 20).strip()[len("{k: ") : -1]


def _dumped(value: Any, width: int) -> str:
    text = io.StringIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.width = width
    yaml.dump(value, text)
    return text.getvalue()


def _laid_out(value: Any, level: int) -> Any:
    if isinstance(value, dict):
        made: Any = CommentedMap({key: _laid_out(item, level + 1) for key, item in value.items()})
    elif isinstance(value, list | tuple):
        made = CommentedSeq([_laid_out(item, DEEP) for item in value])
    else:
        return value
    if isinstance(made, CommentedSeq) or level >= DEEP or (level >= 3 and len(str(value)) <= LONGEST_LINE):
        made.fa.set_flow_style()
    return made
