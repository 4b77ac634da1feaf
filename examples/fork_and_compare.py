"""Fork a context, go on in two ways, and ask which ending the model finds likelier. Forks share what both begin with."""

import math

from runtime import Engine, Sampling

engine = Engine.load()
story = engine.context("Ada found the brass key under the stair.")
story.logits()

for seed in (1, 2, 3):
    twin = story.fork()
    generation = twin.generate(Sampling(max_tokens=25, seed=seed))
    text = generation.run()
    likely = sum(choice.logprob for choice in generation.choices) / len(generation.choices)
    print(f"{text!r}\n   perplexity {math.exp(-likely):.1f}, {twin.stats.encoded_tokens} tokens encoded")
    twin.close()

print("Which word comes next, by one fork each:")
for word in (" She", " The", " Then"):
    with story.fork() as twin:
        probability = twin.logits().softmax(-1)[engine.encode(word)[0]]
        print(f"  {word}: {probability:.4f}")
engine.check()
engine.close()
