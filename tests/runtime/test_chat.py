"""Chat templates, cut into the pieces between turns."""

from __future__ import annotations

import copy

import pytest

from runtime.chat import ChatFormat
from runtime.errors import ModelBroken

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
SILENT_SYSTEM = (
    "{% for m in messages %}{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }}</>{% endif %}{% endfor %}<assistant>"
)

LATE_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }} {% endif %}{{ m.content }} [/INST]{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}"
)


def with_template(tokenizer, template):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "written"),
    # A template that shows past replies behind a space leaves that space to the model.
    [(CHATML, "two"), (NO_SYSTEM, " two"), (SILENT_SYSTEM, "two"), (LATE_SYSTEM, "two")],
    ids=["chatml", "no system", "silent system", "late system"],
)
def test_the_pieces_put_together_are_the_rendered_conversation(tiny_tokenizer, template, written):
    tokenizer = with_template(tiny_tokenizer, template)
    chat = ChatFormat.of(tokenizer)
    turns = [("user", "one"), ("assistant", "two"), ("user", "three")]
    if chat.system:
        turns.insert(0, ("system", "be brief"))
    rendered = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in turns], tokenize=False, add_generation_prompt=True
    )
    start = chat.start + ("be brief" if chat.system else "") + chat.user
    assert start + "one" + chat.reply + written + chat.next_user + "three" + chat.reply == rendered


def test_a_template_that_leaves_the_system_text_out_is_noticed(tiny_tokenizer):
    assert not ChatFormat.of(with_template(tiny_tokenizer, SILENT_SYSTEM)).system
    assert not ChatFormat.of(with_template(tiny_tokenizer, NO_SYSTEM)).system
    assert ChatFormat.of(with_template(tiny_tokenizer, CHATML)).system


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}",
        "{{ nobody.knows }}",
        "{{ messages[0] + 1 }}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
    ],
    ids=["syntax", "undefined", "type", "doubled", "left out", "order"],
)
def test_a_broken_template_is_one_sentence(tiny_tokenizer, template):
    with pytest.raises(ModelBroken, match=r"^The model's chat template cannot be used \(.+\): mend it.*\.$"):
        ChatFormat.of(with_template(tiny_tokenizer, template))


def test_a_model_without_a_template_gets_paragraphs(tiny_tokenizer):
    chat = ChatFormat.of(with_template(tiny_tokenizer, None))
    assert chat.system
    assert chat.user == chat.reply == chat.next_user == "\n\n"
