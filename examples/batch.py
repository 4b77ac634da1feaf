"""Many texts at once: they share every step of the model, and what they begin with."""

import time

from runtime import Engine, Regex, Sampling

engine = Engine.load()
prompts = [f"Premise: {who} finds a letter.\nStory so far:\n" for who in ("Ada", "Bram", "Clara", "Dora", "Emil", "Flora")]

began = time.perf_counter()
for prompt, text in zip(
    prompts, engine.generate(prompts, Sampling(max_tokens=30, temperature=0.8, min_p=0.05, seed=1)), strict=True
):
    print(f"{prompt.split()[1]}: {text!r}")
stats = engine.stats
print(f"{stats.generated_tokens} tokens in {stats.steps} steps and {time.perf_counter() - began:.1f} s")

names = engine.generate(["A girl's name: "] * 4, Sampling(schema=Regex("[A-Z][a-z]{2,7}"), seed=5))
print("under a pattern:", names)
engine.close()
