"""The pages of prompts: setting, comparing, restoring, previewing."""

from __future__ import annotations

import html

from tests.web.dashboard.reading import HOSTILE, etag_of

FIRST = "Answer in English.\nBe brief."
SECOND = "Answer in English.\nBe brief and friendly."


def test_a_prompt_is_set_compared_and_restored(owner, call):
    """The page shows the lines that differ, by whom and since when; a former text is a new version."""
    for text in (FIRST, SECOND.replace("\n", "\r\n")):
        page = owner.send_and_follow("prompts/one", prompt=text, etag=etag_of(owner.open("prompts/one")))

    assert "<del>Be brief.</del><ins>Be brief and friendly.</ins>" in page
    assert "by ADMIN_KEY" in page
    assert SECOND == call("GET", "/prompt")["prompt"]
    owner.send_and_follow("prompts/restore", version="1", etag=etag_of(page))
    assert (FIRST, 3) == (call("GET", "/prompt")["prompt"], call("GET", "/prompt")["version"])
    owner.send("prompts/restore", status=404, version="9")


def test_a_group_and_a_key_have_their_own(owner, call, new_key):
    """Where there is none, the page shows the one that applies; taken away, that one applies again."""
    made = new_key(group="ml, 2026", name="thesis")
    call("PUT", "/prompt", json={"prompt": "everybody's"})

    assert "everybody&#39;s" in owner.open("prompts/one?group=ml,+2026")
    owner.send_and_follow("prompts/one?group=ml,+2026", prompt="the group's")
    assert "the group&#39;s" in owner.open(f"prompts/one?key={made['id']}")
    owner.send_and_follow(f"prompts/one?key={made['id']}", prompt="")
    shown = owner.open("prompts")
    assert "the key thesis of ada" in shown
    assert "no prompt is sent" in shown
    page = owner.send_and_follow("prompts/remove?group=ml,+2026")
    assert "that of the organisation applies" in page
    owner.open("prompts/one?group=nobody's", status=404)


def test_two_admins_on_one_prompt(owner, call):
    """The second one sees both texts, and nothing is stored."""
    tag = etag_of(owner.open("prompts/one"))
    call("PUT", "/prompt", json={"prompt": "the first was faster"})

    page = owner.send("prompts/one", status=412, prompt="the second", etag=tag).text

    assert "the first was faster" in page
    assert "the second</textarea>" in page
    assert "the first was faster" == call("GET", "/prompt")["prompt"]
    owner.send("prompts/remove", status=412, etag=tag)


def test_a_preview_for_a_person(owner, call, new_key):
    """With each key; a key that may not use the model is refused, and the others are shown."""
    for fields in ({"group": "ml", "name": "one"}, {"name": "two", "models": ["gpt-4o"]}):
        new_key(**fields)
    call("PUT", "/prompt?group=ml", json={"prompt": "the group's"})

    page = html.unescape(owner.send("prompts/preview", status=200, user="ada", model="gpt-4o-mini", message="Hi").text)

    assert '"content": "the group\'s"' in page
    assert '"content": "Hi"' in page
    assert "The key one in ml" in page
    assert "gpt-4o" in page.partition("The key two")[2].partition("</section>")[0]
    assert "This person has no key." in owner.send("prompts/preview", status=422, user="nobody").text
    assert "Hello" in owner.open("prompts/preview?group=ml")


def test_hostile_prompts_are_text(owner, call):
    call("PUT", "/prompt", json={"prompt": f"</textarea>{HOSTILE}"})

    for path in ("prompts", "prompts/one"):
        assert "<script>alert" not in owner.open(path)
    assert "<script>alert" not in owner.send("prompts/preview", status=200, message=HOSTILE).text
    assert "<script>alert" not in owner.send("prompts/preview", status=422, user=HOSTILE).text


def test_each_role_sees_what_it_may(named, call, new_key):
    """A group's admin has the prompts of that group, and does not read the organisation's."""
    mine, other = new_key(group="ml"), new_key(group="chemistry")
    call("PUT", "/prompt", json={"prompt": "canary of everybody"})
    call("PUT", "/prompt?group=chemistry", json={"prompt": "canary of chemistry"})
    grace, viewer = named("group", "ml"), named("viewer")

    assert "canary of everybody" not in grace.open("prompts") + grace.open(f"prompts/one?key={mine['id']}")
    assert "chemistry" not in grace.open("prompts")
    grace.open("prompts/one", status=403)
    for whose in ("group=chemistry", f"key={other['id']}"):
        grace.open(f"prompts/one?{whose}", status=404)
        grace.send(f"prompts/one?{whose}", status=404, prompt="mine now")
    grace.send_and_follow("prompts/one?group=ml", prompt="of ml")
    assert "<textarea" not in viewer.open("prompts/one?group=ml")
    viewer.send("prompts/one?group=ml", status=403, prompt="x")
    assert "of ml" == call("GET", "/prompt?group=ml")["prompt"]
