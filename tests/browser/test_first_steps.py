"""Where there is nothing yet, a page says what to do next."""

import re

import pytest
from conftest import picture
from playwright.sync_api import expect


@pytest.mark.parametrize("path, title, action, leads", [
    ("", "1. Create an endpoint", "New endpoint", "/endpoints/new"),
    ("/endpoints", "No endpoints yet", "New endpoint", "/endpoints/new"),
    ("/deliveries", "No deliveries yet", "See the endpoints", "/endpoints"),
    ("/events", "No events yet", "See the event types", "/event-types"),
])
def test_an_empty_page_says_what_to_do_next(browse, fresh, path, title, action, leads, size):
    page = browse(fresh.owner, size)
    page.goto(fresh.home + path)
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    picture(page, f"empty{path.replace('/', '-') or '-overview'}-{size}")
    page.locator("main").get_by_role("link", name=action).first.click()
    page.wait_for_url(f"**{fresh.home}{leads}")


def test_who_may_not_act_is_told_whom_to_ask(browse, fresh, size):
    page = browse(fresh.user("viewer"), size)
    page.goto(fresh.home)
    expect(page.locator("main")).to_contain_text(re.compile("[Aa]sk somebody who"))
    page.goto(f"{fresh.home}/endpoints")
    expect(page.locator(".empty")).to_contain_text(re.compile("[Aa]sk somebody who"))
    expect(page.get_by_role("link", name="New endpoint")).to_have_count(0)


def test_an_account_without_keys_is_told_how_to_get_one(world, browse, fresh, size):
    world.server.call("DELETE", f"/v1/accounts/{fresh.id}/api-keys/{fresh.key_id}").expect(204)
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/api-keys")
    expect(page.get_by_text("No API keys yet")).to_be_visible()
    picture(page, f"empty-api-keys-{size}")
    page.get_by_role("link", name="Create an API key").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Create an API key")


def test_an_account_without_users_is_told_how_to_invite_one(world, browse, size):
    made = world.server.call("POST", "/v1/accounts", {"name": f"Nobody {size}"}).data
    page = browse(world.operator, size)
    page.goto(f"/accounts/{made['id']}/users")
    expect(page.get_by_text("Nobody can sign in to this account yet")).to_be_visible()
    page.get_by_role("link", name="Invite a user").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Invite a user")


def test_an_endpoint_without_deliveries_says_how_to_try_it(world, browse, fresh, size):
    id = fresh.endpoint(f"{world.receiver.url}/quiet")
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    expect(page.locator("#deliveries")).to_contain_text("None yet. A test")
    expect(page.get_by_text("No attempts in this time.")).to_be_visible()
    picture(page, f"empty-endpoint-{size}")
    page.goto(fresh.home)
    expect(page.locator("#attention")).to_contain_text("Healthy")
    picture(page, f"empty-overview-one-endpoint-{size}")


def test_a_log_without_matches_offers_to_clear_the_filter(browse, fresh):
    page = browse(fresh.owner)
    for path, title in [("/deliveries?status=failed", "No delivery matches"), ("/audit-log?action=webhook.deleted", "No entry matches")]:
        page.goto(fresh.home + path)
        expect(page.get_by_text(title)).to_be_visible()
        page.locator(".empty").get_by_role("link", name="Clear filters").click()
        assert "?" not in page.url
