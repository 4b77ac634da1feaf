"""The story world: rich, exact, the same from the same seed, and its judge agrees with its teacher."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recurrent_writer.bookkeeping import MAX_DROPS, Bookkeeping
from recurrent_writer.short_memory import MAX_SENTENCES, revise
from training.world import __main__ as show
from training.world.course import Course
from training.world.forms import FormError, Narrator, Scene, parse, render
from training.world.history import History
from training.world.inflect import UnknownVerb, inflect
from training.world.judge import judge
from training.world.kinds import BUILT_IN, KindError, all_kinds, read_kinds
from training.world.lexicon import Lexicon, Person, Place, Thing, words
from training.world.scene_forms import SceneError, all_scenes, read_scenes

SEEDS = st.integers(0, 2**40)

ADA, BRAM = Person("Ada", "she", "miller", "stubborn"), Person("Bram", "he", "ferryman", "patient")
KEY, MILL = Thing("brass", "key"), Place("the old mill", "in")


def told(source, narrator=None):
    binding = {"A": ADA, "B": BRAM, "T": KEY}
    return render(parse(source), Scene(binding, narrator or Narrator(), MILL)).text


# Forms.


@pytest.mark.parametrize(
    ("narrator", "text"),
    [
        (Narrator(3, "past"), "Ada gave the brass key to Bram, and she smiled. The door was open."),
        (Narrator(3, "present"), "Ada gives the brass key to Bram, and she smiles. The door is open."),
        (Narrator(2, "present", ADA), "You give the brass key to Bram, and you smile. The door is open."),
        (Narrator(1, "past", BRAM), "Ada gave the brass key to me, and she smiled. The door was open."),
    ],
)
def test_a_form_is_told_by_any_narrator(narrator, text):
    assert told("{A} [give] {T} to {B}, and {A.he} [smile]. The door [be:it] open.", narrator) == text


def test_small_things_of_forms():
    you = Narrator(2, "present", ADA)
    assert told('"Why?" {A} [ask]. "Go!" {A} [slam] the door.', you) == '"Why?" you ask. "Go!" You slam the door.'
    assert told("{B} [watch] {A}, who [laugh] at {A.himself}.", you) == "Bram watches you, who laugh at yourself."
    assert told("{here.at} {A.he} [lose] {T.a}.") == "In the old mill she lost a brass key."
    assert told('"Ask {A}," {B} [say].', you) == '"Ask Ada," Bram says.', "in speech a name is a name"


@pytest.mark.parametrize(
    "source",
    [
        "{A} [zzzqq] off.",
        "{X} [go].",
        "{A.tail} [go].",
        '{A} [say], "I [go]."',
        '{A} [say], "{A.he} left."',
        'One " mark',
        "{A} [go",
        "caf\u00e9",
    ],
)
def test_a_form_that_is_not_well_made_is_refused(source):
    with pytest.raises((FormError, UnknownVerb)):
        parse(source)


@pytest.mark.parametrize(
    ("lemma", "past", "third"),
    [
        ("go", "went", "goes"),
        ("lie", "lay", "lies"),
        ("be", "was", "is"),
        ("can", "could", "can"),
        ("stop", "stopped", "stops"),
    ],
)
def test_verbs(lemma, past, third):
    assert inflect(lemma, "past", "third") == past
    assert inflect(lemma, "present", "third") == third


# The written world.


def test_the_world_is_as_rich_as_it_claims():
    kinds = all_kinds().values()
    forms = {form.source for kind in kinds for register in kind.prose for form in kind.forms[register]}
    scenes = {form.source for group in all_scenes() for form in group.forms}
    assert len(kinds) >= 300
    assert len(forms) >= 6000
    assert len(scenes) >= 1300
    assert len(words("names", "male")) + len(words("names", "female")) >= 400
    assert len(words("things", "nouns")) >= 280
    assert len(words("places", "places")) >= 330


def test_every_invented_predicate_can_be_brought_about_needed_and_ended():
    made, asked = set(), set()
    for kind in all_kinds().values():
        made |= {atom.predicate for atom in kind.then if atom.holds}
        asked |= {atom.predicate for atom in kind.when if atom.holds}
    assert asked - set(BUILT_IN) - made == set()


def test_a_kind_with_faults_is_refused_with_all_of_them():
    with pytest.raises(KindError) as fault:
        read_kinds('[go]\nroles = { A = "person", T = "thing" }\nwhen = []\nthen = ["near A T"]\ncue = ["go"]\n' + "".join(
            f"{section} = '''\n{{A}} goes.\n'''\n" for section in ("plan", "fact", "act", "plain", "adventure", "quiet", "voices")
        ), "theme")  # fmt: skip
    text = str(fault.value)
    assert "no condition in 'when' says where it comes from" in text
    assert "can be asked for, not brought about" in text
    assert "at least 4 wanted" in text
    with pytest.raises(SceneError, match="unknown tag 'place:moon'"):
        read_scenes("[x]\npart = 'opener'\nwhen = ['place:moon']\nforms = '''\n{A} [look] at {here}.\n'''")


def test_held_out_words_are_never_in_training():
    import random

    def drawn(split):
        lexicon = Lexicon(random.Random(1), split, invented=0)
        found = set()
        for _ in range(60):
            fresh = Lexicon(lexicon.rng, split, invented=0)
            found |= {fresh.person().name.split()[0], fresh.thing().noun, fresh.place().name}
        return found

    assert not drawn("train") & drawn("held_out")


# What happens in it.


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_events_do_what_they_say(seed):
    history = History(seed)
    for event in islice(history, 25):
        state = history.state
        assert all(state.holds(fact) or fact[0] in ("at", *BUILT_IN) for fact in event.made)
        for thing, found in state.things.items():
            assert (found.way == "gone") == (found.owner is None)
            assert found.way != "has" or isinstance(found.owner, Person)
            assert found.way != "hidden" or thing in state.spots
        assert history.protagonist in state.living()
        people = [entity for letter, entity in event.binding.items() if isinstance(entity, Person)]
        assert len(set(people)) == len(people)


def test_the_same_seed_tells_the_same_story():
    one, two = (list(islice(Course(5), 8)) for _ in range(2))
    assert one == two
    assert one != list(islice(Course(6), 8))


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_the_teachers_steps_are_valid_bookkeeping(seed):
    memory: tuple[str, ...] = ()
    for step in islice(Course(seed), 25):
        assert step.memory == memory
        assert Bookkeeping.read(step.bookkeeping.to_json(), step.memory) == step.bookkeeping
        assert len(step.bookkeeping.drop) <= MAX_DROPS
        memory = revise(step.memory, step.bookkeeping)
        assert len(memory) <= MAX_SENTENCES
        assert len(step.paragraph.split()) <= 190
        assert not re.search(r"[{}\[\]]", step.paragraph + step.plan)


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
@example(seed=4167727)  # a sentence that had to be added took the place of another
def test_what_a_paragraph_takes_for_granted_stands_in_what_the_model_reads(seed):
    for step in islice(Course(seed), 1, 20):
        read = " ".join([step.premise, *step.recent, *step.recalled, *step.memory])
        for attribute, entity in step.required:
            if isinstance(entity, Person):
                assert str(getattr(entity, attribute)) in read


def judged(seed, steps=6, change=lambda text, event: text):
    course = Course(seed, free_share=0)
    for number, step in enumerate(islice(course, steps)):
        if number == 0 or step.event is None:
            continue
        paragraph = change(step.paragraph, step.event)
        if paragraph is not None:
            read = " ".join([step.premise, *step.recent, *step.recalled, *step.memory, step.plan])
            yield judge(step, paragraph, course.style.narrator, course.history.state.spots, read)


def test_the_judge_agrees_with_the_teacher():
    verdicts = [verdict for seed in range(60) for verdict in judged(seed)]
    assert sum(verdict.follows for verdict in verdicts) / len(verdicts) > 0.98
    assert sum(not verdict.faults for verdict in verdicts) / len(verdicts) > 0.98
    assert sum(verdict.judged for verdict in verdicts) / sum(verdict.sentences for verdict in verdicts) > 0.8


def swap_people(text, event):
    people = [entity.name for entity in event.binding.values() if isinstance(entity, Person)][:2]
    if len(people) < 2 or any(name not in text for name in people):
        return None
    return text.replace(people[0], "\0").replace(people[1], people[0]).replace("\0", people[1])


def another_name(text, event):
    name = next((entity.name for entity in event.binding.values() if isinstance(entity, Person) and entity.name in text), None)
    return text.replace(name, "Xanthopher") if name else None


def another_thing(text, event):
    thing = next((entity for entity in event.binding.values() if isinstance(entity, Thing) and entity.name in text), None)
    return text.replace(thing.name, "purple zeppelin") if thing else None


@pytest.mark.parametrize(("change", "least"), [(swap_people, 0.85), (another_name, 0.97), (another_thing, 0.97)])
def test_the_judge_sees_what_is_wrong(change, least):
    verdicts = [verdict for seed in range(40) for verdict in judged(seed, change=change)]
    assert len(verdicts) > 30
    assert sum(bool(v.faults) or not v.follows for v in verdicts) / len(verdicts) >= least


def test_a_world_can_be_looked_at(capsys):
    assert show.main(["--seed", "3", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    assert "People" in out
    assert "step 3" in out
