"""Engines: a prompt and a grammar go in, a reply comes out. llama.cpp, in a process of its own.

In: prompts, grammars, a GGUF file.
Out: completions with their counts and times.
May import: grammar, wire, devices. Only the files llama_cpp_*.py know llama_cpp.
"""
