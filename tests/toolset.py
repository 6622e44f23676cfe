"""A toolset with Python functions, and its conversations, for tests of several packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SYSTEM = "You are the refund desk. Be brief."
FUNCTIONS = '''
import os, time
def process_refund(transaction_id, amount, note="", key=None):
    """Pays a customer back."""
    print("noise")
    if transaction_id == "BAD":
        raise ValueError("no such transaction")
    if transaction_id == "BROKEN":
        raise RuntimeError("the till is stuck")
    if transaction_id == "HANG":
        time.sleep(60)
    with open(os.path.join(os.path.dirname(__file__), "done.txt"), "a") as file:
        file.write(f"{transaction_id} {amount} {key}\\n")
    return {"refund_id": "REF_7712"}
def find_transaction(transaction_id: str):
    return {"amount": 50.0, "secret": os.environ.get("SHOP_SECRET", ""), "list": list(range(60)), "text": "x" * 5000}
'''
TOOLSET = """\
schema: toolset/v1
name: refunds
title: the refund desk
system: {system}
executors:
  own: {{type: python, file: {file}, timeout_s: 3}}
tools:
  process_refund:
    description: Pays a customer back.
    parameters:
      type: object
      properties:
        transaction_id: {{type: string}}
        amount: {{type: number, minimum: 0}}
        note: {{type: string, default: ""}}
      required: [transaction_id, amount]
    risk: confirm
    limits: {{amount: {{maximum: 100}}}}
    executor: own
  find_transaction:
    parameters: {{type: object, properties: {{transaction_id: {{type: string}}}}, required: [transaction_id]}}
    risk: none
    executor: own
    at: {{function: find_transaction}}
"""
WORDS = (
    "refund {0} please, {1}", "I want {1} back for {0}", "give me my money back: {0}, {1}", "{0} was charged 2x, {1}",
    "please pay back {1} of {0}", "pay {0} back, it was {1}", "could you return {1} for {0}", "money back {0} {1}",
)  # fmt: skip


def toolset_in(folder: Path) -> Path:
    """Write the toolset and its functions; return its file."""
    (folder / "functions.py").write_text(FUNCTIONS, encoding="utf-8")
    path = folder / "tools.yaml"
    path.write_text(TOOLSET.format(system=SYSTEM, file=folder / "functions.py"), encoding="utf-8")
    return path


def conversation(number: int = 9982, amount: float = 50.0, words: str = WORDS[0], **changes: Any) -> dict[str, Any]:
    """Return one conversation in OpenAI's form, as its users have them."""
    code = f"TXN{number}"
    arguments = json.dumps({"transaction_id": code, "amount": amount})
    call = {"id": "1", "type": "function", "function": {"name": "process_refund", "arguments": arguments}}
    texts = {"transaction_id": {"type": "string"}}
    sums = {"amount": {"type": "number", "minimum": 0}, "note": {"type": "string", "default": ""}}
    refund = {"type": "object", "properties": texts | sums, "required": ["transaction_id", "amount"]}
    find = {"type": "object", "properties": texts, "required": ["transaction_id"]}
    functions = [
        {"name": "process_refund", "description": "Pays a customer back.", "parameters": refund},
        {"name": "find_transaction", "parameters": find},
    ]
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": words.format(code, amount)},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": f'{{"refund_id": "REF_{number}"}}'},
            {"role": "assistant", "content": f"I refunded {amount}, reference REF_{number}."},
        ],
        "tools": [{"type": "function", "function": json.loads(json.dumps(one))} for one in functions],
    } | changes


def conversations_in(folder: Path, count: int = 40) -> Path:
    """Write conversations as a JSON array; return the file."""
    rows = [conversation(1000 + 7 * number, 5.0 + number, WORDS[number % len(WORDS)]) for number in range(count)]
    path = folder / "conversations.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path
