"""Replays: asked for, followed, stopped."""

import re

import pytest
from playwright.sync_api import expect
from world import eventually


def missed(world, account, count):
    """An endpoint that was paused while so many events were published."""
    id = account.endpoint(f"{world.receiver.url}/replayed-{account.id}")
    account.pause(id)
    account.publish_many("order.created", count)
    return id


@pytest.mark.parametrize("role", ["owner", "developer"])
def test_a_replay_is_started_and_its_progress_followed_to_the_end(world, browse, fresh, role, size):
    id = missed(world, fresh, 300)
    page = browse(fresh.owner if role == "owner" else fresh.user(role), size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("link", name="Replay what was missed").click()
    expect(page.locator("#f-status-hint")).to_contain_text("300")
    expect(page.get_by_role("combobox", name="Which events")).to_have_value("missed")
    page.get_by_role("button", name="Start the replay").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Replay")
    # It waits for its endpoint, and says so.
    progress = page.locator("#replay")
    expect(progress).to_contain_text("The endpoint is not active.")
    fresh.call("PUT", f"/v1/webhooks/{id}", {"status": "active"}).expect(200)
    expect(progress).to_contain_text("300 of 300 sent")
    expect(progress).to_contain_text("Completed")
    expect(page.get_by_role("progressbar")).to_have_attribute("value", "300")
    expect(page.get_by_role("button", name="Cancel the replay")).to_have_count(0)
    eventually(lambda: len(world.receiver.came[f"/replayed-{fresh.id}"]) == 300, "every event")


def test_a_replay_is_cancelled(world, browse, fresh, size):
    id = missed(world, fresh, 5)
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/endpoints/{id}/replay")
    page.get_by_role("button", name="Start the replay").click()
    page.get_by_role("button", name="Cancel the replay").click()
    expect(page.locator("#replay")).to_contain_text("Cancelled")
    expect(page.get_by_role("link", name="Another replay")).to_be_visible()
    assert world.receiver.came[f"/replayed-{fresh.id}"] == []


def test_a_replay_that_cannot_be_says_why(world, browse, fresh, size):
    id = missed(world, fresh, 1)
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/endpoints/{id}/replay")
    page.locator("#f-from").fill("2026-02-02T10:00")
    page.locator("#f-to").fill("2026-02-01T10:00")
    page.get_by_role("button", name="Start the replay").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed.")
    expect(page.locator("#f-from")).to_have_value("2026-02-02T10:00")
    expect(page.locator("#f-from-error, #f-to-error").first).not_to_be_empty()


def test_a_replay_of_nothing_is_over_at_once(world, browse, fresh):
    id = fresh.endpoint(f"{world.receiver.url}/nothing")
    page = browse(fresh.owner)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("link", name="Replay", exact=True).click()
    page.get_by_role("button", name="Start the replay").click()
    expect(page.locator("#replay")).to_contain_text("There was nothing to send")
    expect(page.locator("#replay")).to_contain_text("Completed")


def test_a_replay_that_waits_is_seen_by_who_may_only_look(world, browse):
    page = browse(world.cookies["viewer"])
    page.goto(f"{world.acme.home}/replays/{world.names['replay']}")
    expect(page.locator("#replay")).to_contain_text(re.compile(r"0 of [\d,]+ sent"))
    expect(page.get_by_role("button", name="Cancel the replay")).to_have_count(0)
