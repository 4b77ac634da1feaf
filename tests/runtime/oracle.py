"""What a live context must be equal to, worked out the slow and certain way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from transformers import AttentionInterface, AutoModelForCausalLM


@dataclass(eq=False)
class Encoded:
    """One token as it went through the model once: at which position, and with whom before it."""

    token: int
    position: int
    seen: tuple[Encoded, ...]
    seen_at: tuple[int, ...]
    """The positions of those at that time."""
    keys: list = field(default_factory=list)
    values: list = field(default_factory=list)


@dataclass
class Token:
    token: int
    position: int
    encoded: Encoded | None = None


class Mirror:
    """The meaning of a live context in plain lists, for any order of edits in any mode."""

    def __init__(self):
        self.tokens = []
        self.asked = False

    def copy(self):
        twin = Mirror()
        twin.tokens = [replace(token) for token in self.tokens]
        twin.asked = self.asked
        return twin

    @property
    def ids(self):
        return [token.token for token in self.tokens]

    @property
    def positions(self):
        return [token.position for token in self.tokens]

    def room(self, start, stop):
        """How many positions lie between the tokens around a span."""
        return self.tokens[stop].position - self._next(start) if stop < len(self.tokens) else 1000

    def append(self, ids):
        self._put(len(self.tokens), len(self.tokens), ids)

    def change(self, start, stop, ids, mode):
        """Replace tokens `start` to `stop`; what both begin with stays."""
        same = 0
        while same < min(len(ids), stop - start) and ids[same] == self.tokens[start + same].token:
            same += 1
        start, ids = start + same, ids[same:]
        if start == stop and not ids:
            return
        if mode == "exact":
            fresh = self._fresh_until(start)
            self._put(start, stop, ids)
            for at, token in enumerate(self.tokens[fresh:], fresh):
                token.position, token.encoded = at, None
            return
        shift = 0
        if stop < len(self.tokens):
            room = self.tokens[stop].position - self._next(start)
            assert mode != "gap" or len(ids) <= room, "this mirror knows no fallback"
            shift = len(ids) - room if mode == "rotate" else 0
        self._put(start, stop, ids)
        for token in self.tokens[start + len(ids) :]:
            token.position += shift

    def encode(self):
        """Every token that went through the model since the last time, and at last the one whose logits are wanted."""
        if not self.asked:
            self.tokens[-1].encoded = None
        new = []
        for at, token in enumerate(self.tokens):
            if token.encoded is None:
                before = self.tokens[:at]
                token.encoded = Encoded(
                    token.token, token.position, tuple(t.encoded for t in before), tuple(t.position for t in before)
                )
                new.append(token.encoded)
        self.asked = True
        return self.tokens[-1].encoded

    def _next(self, at):
        return self.tokens[at - 1].position + 1 if at else 0

    def _put(self, start, stop, ids):
        begin = self._next(start)
        self.tokens[start:stop] = [Token(token, begin + at) for at, token in enumerate(ids)]
        self.asked = False

    def _fresh_until(self, start):
        """How many of the first tokens are what a fresh run would have."""
        for at, token in enumerate(self.tokens[:start]):
            fresh = token.position == at
            if token.encoded is not None:
                fresh &= token.encoded.position == at and [e.token for e in token.encoded.seen] == self.ids[:at]
                fresh &= all(e is t.encoded for e, t in zip(token.encoded.seen, self.tokens, strict=False))
            if not fresh:
                return at
        return start


def eager_logits(folder, loaded={}):  # noqa: B006
    """Next-token logits of a token as it was encoded: Hugging Face eager with an explicit mask over all that ever was before it."""
    if folder not in loaded:
        loaded[folder] = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    model = loaded[folder]

    @torch.inference_mode()
    def logits(last):
        everyone = history(last)
        index = {id(encoded): at for at, encoded in enumerate(everyone)}
        count = len(everyone)
        seen = torch.zeros(count, count, dtype=torch.bool)
        for at, encoded in enumerate(everyone):
            seen[at, at] = True
            seen[at, [index[id(other)] for other in encoded.seen]] = True
        positions = torch.tensor([[encoded.position for encoded in everyone]])
        near = positions[0][:, None] - positions[0] < (getattr(model.config, "sliding_window", None) or count)
        masks = {"full_attention": _additive(seen), "sliding_attention": _additive(seen & near)}
        kinds = getattr(model.config, "layer_types", None)
        mask = masks["sliding_attention" if model.config.model_type == "mistral" else "full_attention"]
        output = model(
            input_ids=torch.tensor([[encoded.token for encoded in everyone]]),
            position_ids=positions,
            attention_mask=masks if kinds and "sliding_attention" in kinds else mask,
            use_cache=False,
        )
        return output.logits[0, index[id(last)]]

    return logits


def _additive(seen):
    return torch.zeros(1, 1, *seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)


def history(last):
    """Everyone that an encoded token saw, or that those saw, earlier ones first."""
    found = {}

    def visit(start):
        stack = [(start, iter(start.seen))]
        while stack:
            encoded, others = stack[-1]
            for other in others:
                if id(other) not in found:
                    stack.append((other, iter(other.seen)))
                    break
            else:
                found[id(encoded)] = encoded
                stack.pop()

    visit(last)
    return list(found.values())


class TurningReference:
    """Next-token logits with every key kept as it is at position 0, and turned in float64 whenever it is read.

    So it knows what mode "rotate" means without ever turning a key twice.
    """

    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="turning", experts_implementation="eager", dtype=torch.float64
        ).eval()

    @torch.inference_mode()
    def logits(self, last):
        for encoded in history(last):
            if not encoded.keys:
                _turning.append(encoded)
                output = self.model(
                    input_ids=torch.tensor([[encoded.token]]), position_ids=torch.tensor([[0]]), use_cache=False
                )
                _turning.pop()
                if encoded is last:
                    encoded.logits = output.logits[0, -1]
        return last.logits.float()


def frequencies(config, layer):
    """The angles per position of a layer's rotary embedding, float64, from the formula; None where a layer turns nothing."""
    if getattr(config, "no_rope_layers", None) and not config.no_rope_layers[layer]:
        return None
    rope = config.rope_parameters
    if "rope_theta" not in rope:
        rope = rope[config.layer_types[layer]]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    return rope["rope_theta"] ** -(torch.arange(0, turned, 2, dtype=torch.float64) / turned)


def turned(vectors, positions, angles):
    """`[n, heads, head_dim]` at position 0, turned to `[n]` positions; the halves of the turned part are pairs."""
    if angles is None:
        return vectors
    pairs = len(angles)
    angle = torch.as_tensor(positions, dtype=torch.float64)[:, None, None] * angles
    first, second, rest = vectors[..., :pairs], vectors[..., pairs : 2 * pairs], vectors[..., 2 * pairs :]
    return torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos(), rest], -1)


_turning = []


def _turning_attention(module, query, key, value, attention_mask, *, scaling, sliding_window=None, **more):
    layer, config, encoded = module.layer_idx, module.config, _turning[-1]
    encoded.keys.append(key[0, :, 0])
    encoded.values.append(value[0, :, 0])
    angles = frequencies(config, layer)
    everyone, positions = [*encoded.seen, encoded], [*encoded.seen_at, encoded.position]
    keys = turned(torch.stack([other.keys[layer] for other in everyone]), positions, angles)
    values = torch.stack([other.values[layer] for other in everyone])
    one = turned(query[0].transpose(0, 1), [encoded.position], angles)[0]
    group = one.shape[0] // keys.shape[1]
    scores = torch.einsum("hd,nhd->hn", one, keys.repeat_interleave(group, 1)) * scaling
    if more.get("softcap"):
        scores = more["softcap"] * torch.tanh(scores / more["softcap"])
    if sliding_window is not None:
        far = encoded.position - torch.tensor(positions) >= sliding_window
        scores = scores.masked_fill(far, -math.inf)
    if more.get("s_aux") is not None:
        scores = torch.cat([scores, more["s_aux"][:, None].to(scores)], -1)
    weights = scores.softmax(-1)[:, : len(everyone)]
    out = torch.einsum("hn,nhd->hd", weights, values.repeat_interleave(group, 1))
    return out[None, None], None


AttentionInterface.register("turning", _turning_attention)
