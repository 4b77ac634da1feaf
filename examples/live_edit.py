"""Edit text in the middle of a context while a model writes behind it: only what the edit changes is encoded again."""

from runtime import Engine, Sampling

engine = Engine.load()  # the bundled model; or a folder, or a Hugging Face id
context = engine.context("Premise: Ada keeps the lighthouse.\n\n")
memory = context.append("Memory: the lamp is dark.\n\n")
context.append("The story so far:\n")
sampling = Sampling(max_tokens=40, seed=7)

for piece in context.generate(sampling):
    print(piece, end="", flush=True)
print(f"\n-- {context.stats.encoded_tokens} tokens encoded, {context.stats.resident_tokens} resident")

before = context.stats.encoded_tokens
memory = context.replace(memory, "Memory: the lamp burns again.\n\n")  # exact: what is behind it is encoded again
context.logits()
print(f"-- an edit in mode exact: {context.stats.encoded_tokens - before} tokens encoded again")

before = context.stats.encoded_tokens
context.drop(memory, mode="rotate")  # keys behind it are turned to their new positions instead
context.append("\n")
for piece in context.generate(sampling):
    print(piece, end="", flush=True)
print(
    f"\n-- after a drop in mode rotate: {context.stats.encoded_tokens - before} tokens encoded, {len(context)} in the context"
)
engine.close()
