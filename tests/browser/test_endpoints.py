"""What is done with endpoints: made, changed, paused, tested, given another secret, deleted."""

import re

import pytest
from conftest import copied, fact, picture, read_all
from pages import of_role
from playwright.sync_api import expect
from world import HOSTILE, eventually


def heading(page):
    return page.get_by_role("heading", level=1)


@pytest.mark.parametrize("role", ["owner", "developer", "operator"])
def test_an_endpoint_is_made_and_its_secret_shown_once(world, browse, fresh, role, size):
    cookie = {"owner": fresh.owner, "operator": world.operator}.get(role) or fresh.user(role)
    page = browse(cookie, size)
    page.goto(f"{fresh.home}/endpoints")
    page.get_by_role("link", name="New endpoint").click()
    page.get_by_role("textbox", name="URL", exact=True).fill(f"{world.receiver.url}/made")
    page.get_by_role("checkbox", name="order.created").check()
    page.get_by_role("checkbox", name="invoice.paid").check()
    page.get_by_role("textbox", name="Description").fill("Where orders go")
    page.get_by_role("button", name="Create endpoint").click()
    expect(heading(page)).to_have_text("The endpoint is created")
    secret = page.get_by_label("Signing secret", exact=True).input_value()
    assert re.fullmatch("[0-9a-f]{64}", secret)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert copied(page) == secret

    # Loaded again, the form is sent again: nothing is made twice, and nothing is shown twice.
    page.reload()
    expect(page.get_by_text("The secret was shown already.")).to_be_visible()
    assert secret not in page.content() and secret[-4:] in page.content()
    assert len(fresh.call("GET", "/v1/webhooks").data) == 1

    page.get_by_role("link", name="To the endpoint").click()
    expect(heading(page)).to_have_text(f"{world.receiver.url}/made")
    expect(fact(page, "Signing secret")).to_contain_text(secret[-4:])
    assert secret not in page.content()
    made = fresh.call("GET", "/v1/webhooks").data[0]["attributes"]
    assert (sorted(made["events"]), made["description"]) == (["invoice.paid", "order.created"], "Where orders go")


def test_an_endpoint_is_changed_and_what_cannot_be_is_told(world, browse, fresh, size):
    id = fresh.endpoint(f"{world.receiver.url}/before", description="Before")
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_role("checkbox", name="order.created").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed.")
    expect(page.locator("#f-events-error")).not_to_be_empty()
    page.get_by_role("checkbox", name="stock.low").check()
    page.get_by_role("textbox", name="URL", exact=True).fill(f"{world.receiver.url}/after")
    page.get_by_role("textbox", name="Description").fill("")
    page.get_by_role("combobox", name="Ordering").select_option("fifo")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(heading(page)).to_have_text(f"{world.receiver.url}/after")
    changed = fresh.read_endpoint(id)
    assert (changed["events"], changed["description"], changed["ordering"]) == (["stock.low"], None, "fifo")


def test_an_endpoint_is_paused_and_resumed_and_what_it_missed_is_told(world, browse, fresh, size):
    id = fresh.endpoint(f"{world.receiver.url}/pause")
    page = browse(fresh.user("developer"), size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("button", name="Pause endpoint").click()
    expect(fact(page, "Status")).to_have_text("Paused")
    assert fresh.read_endpoint(id)["status"] == "disabled"
    fresh.publish_many("order.created", 3)
    page.reload()
    expect(page.get_by_text("3 events were published while this endpoint was not active")).to_be_visible()
    expect(page.get_by_role("link", name="Replay what was missed")).to_be_visible()
    page.goto(fresh.home)
    expect(page.locator(".attention")).to_contain_text("3 events were published while it was paused")
    page.get_by_role("link", name="Resume or replay").click()
    page.get_by_role("button", name="Resume endpoint").click()
    expect(page.get_by_text("Resumed.")).to_be_visible()
    assert fresh.read_endpoint(id)["status"] == "active"


def test_an_endpoint_is_deleted_only_with_its_url_typed(world, browse, fresh, size):
    url = f"{world.receiver.url}/doomed"
    id = fresh.endpoint(url)
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("link", name="Delete", exact=True).click()
    expect(page.locator(".danger-zone li")).not_to_have_count(0)
    assert fresh.read_endpoint(id)["status"] == "active", "asking does nothing"
    button = page.get_by_role("button", name="Delete the endpoint")
    button.click()
    expect(page.locator("#f-confirm")).to_be_focused()
    page.locator("#f-confirm").fill(f"{url}s")
    button.click()
    expect(page.locator("#f-confirm-error")).to_have_text("Type it exactly as it stands above.")
    fresh.read_endpoint(id)
    page.get_by_role("textbox", name=f"Type {url} to confirm").fill(url)
    button.click()
    expect(page.get_by_text("The endpoint is deleted.")).to_be_visible()
    expect(page.get_by_text("No endpoints yet")).to_be_visible()
    fresh.call("GET", f"/v1/webhooks/{id}").expect(404)


def test_whoever_cancels_a_dangerous_step_has_done_nothing(world, browse, fresh):
    id = fresh.endpoint(f"{world.receiver.url}/kept")
    page = browse(fresh.owner)
    before = fresh.read_endpoint(id)
    for step in ["Delete", "Rotate secret"]:
        page.goto(f"{fresh.home}/endpoints/{id}")
        page.get_by_role("link", name=step, exact=True).click()
        page.get_by_role("link", name="Cancel").click()
        expect(heading(page)).to_have_text(f"{world.receiver.url}/kept")
    assert fresh.read_endpoint(id) == before


@pytest.mark.parametrize("overlap, told", [("0", "The old secret"), ("86400", "for 24 hours")])
def test_a_rotation_says_what_it_will_do_and_shows_the_new_secret_once(world, browse, fresh, overlap, told, size):
    url = f"{world.receiver.url}/rotated-{fresh.id}"
    id = fresh.endpoint(url)
    page = browse(fresh.owner, size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    before = fresh.read_endpoint(id)["secret_hint"]
    page.get_by_role("link", name="Rotate secret").click()
    expect(page.locator(".danger-zone li")).to_contain_text(["A new secret", "Without an overlap", "With an overlap", ""])
    assert fresh.read_endpoint(id)["secret_hint"] == before, "asking does nothing"
    page.get_by_role("combobox").select_option(overlap)
    page.get_by_role("button", name="Rotate secret").click()
    expect(heading(page)).to_have_text("The secret is rotated")
    expect(page.get_by_text(told).first).to_be_visible()
    secret = page.get_by_label("New signing secret").input_value()
    assert fresh.read_endpoint(id)["secret_hint"].endswith(secret[-4:]) and secret[-4:] not in before
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert copied(page) == secret
    page.get_by_role("link", name="To the endpoint").click()
    expect(fact(page, "Signing secret")).to_contain_text(secret[-4:])
    for path in [f"/endpoints/{id}", f"/endpoints/{id}/edit", f"/endpoints/{id}/rotate", "/audit-log", "/deliveries"]:
        page.goto(fresh.home + path)
        assert secret not in page.content()
    # With an overlap each attempt is signed by both.
    fresh.publish()
    headers, _ = eventually(lambda: world.receiver.came[url.removeprefix(world.receiver.url)], "the delivery")[0]
    signatures = {name.lower(): value for name, value in headers.items()}["webhook-signature"].split()
    assert len(signatures) == (1 if overlap == "0" else 2)


def test_a_test_shows_the_whole_exchange(world, browse, fresh, size):
    path = f"/tested-{fresh.id}"
    id = fresh.endpoint(world.receiver.url + path)
    page = browse(fresh.user("developer"), size)
    page.goto(f"{fresh.home}/endpoints/{id}")
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("Delivered.", exact=True)).to_be_visible()
    request, answer = page.get_by_role("region", name="Request"), page.get_by_role("region", name="Answer")
    expect(request).to_contain_text("POST")
    expect(request).to_contain_text(world.receiver.url + path)
    expect(request).to_contain_text("webhook-id")
    _, body = world.receiver.came[path][-1]
    assert body.decode() in request.inner_text()
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text('"thanks": true')
    page.get_by_role("button", name="Send another test").click()
    expect(page.get_by_text("Delivered.", exact=True)).to_be_visible()
    assert len(world.receiver.came[path]) == 2
    answer.get_by_role("link").click()
    expect(heading(page)).to_contain_text("Delivery")
    # A test is no event, so none can be looked at.
    for link in page.locator("#delivery a").all():
        assert page.request.get(link.get_attribute("href")).status == 200, link.get_attribute("href")


def test_a_test_that_fails_says_what_to_look_at(world, browse, fresh, size):
    page = browse(fresh.owner, size)
    hostile = fresh.endpoint(f"{world.receiver.url}/hostile")
    page.goto(f"{fresh.home}/endpoints/{hostile}")
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("Not delivered.")).to_be_visible()
    expect(page.locator(".notice")).to_contain_text("Its own log")
    expect(page.get_by_role("region", name="Answer")).to_contain_text(HOSTILE)
    assert page.title() == "Test · Aldaba"
    nobody = fresh.endpoint("http://127.0.0.1:9/nobody")
    page.goto(f"{fresh.home}/endpoints/{nobody}")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator(".notice")).to_contain_text("There was no answer.")
    picture(page, f"after-test-unanswered-{size}")


def test_the_page_of_an_endpoint_tells_how_it_is(world, browse, size):
    names, page = world.names, browse(world.cookies["viewer"], size)
    well = f"{world.acme.home}/endpoints/{names['warehouse']}"
    page.goto(well)
    expect(fact(page, "Status")).to_have_text("Active")
    expect(fact(page, "Failed attempts in a row")).to_have_text("0")
    expect(page.get_by_role("img", name="Attempts over time by outcome")).to_be_visible()
    latest = page.get_by_role("region", name="Latest deliveries")
    assert latest.get_by_role("row").count() == 21
    latest.get_by_role("link", name="All its deliveries").click()
    assert page.url.endswith(f"/deliveries?endpoint_id={names['warehouse']}")

    page.goto(f"{world.acme.home}/endpoints/{names['billing']}")
    expect(fact(page, "Status")).to_have_text("Failing")
    expect(fact(page, "Failed attempts in a row")).to_have_text("12")
    expect(page.get_by_text("The last 12 attempts failed.")).to_be_visible()
    page.goto(f"{world.acme.home}/endpoints/{names['gone']}")
    expect(fact(page, "Status")).to_have_text("Auto-disabled")
    expect(page.get_by_text(re.compile(r"Disabled after \d+ failed attempts in a row"))).to_be_visible()


def test_the_period_of_the_chart_is_in_the_address(world, browse):
    page = browse(world.cookies["owner"])
    for path in ["", f"/endpoints/{world.names['warehouse']}"]:
        page.goto(world.acme.home + path)
        period = page.get_by_role("navigation", name="Period")
        expect(period.locator("[aria-current]")).to_have_text("24 hours")
        period.get_by_role("link", name="1 hour").click()
        expect(period.locator("[aria-current]")).to_have_text("1 hour")
        assert page.url.endswith("?period=1h")
        page.go_back()
        expect(period.locator("[aria-current]")).to_have_text("24 hours")


def test_the_overview_names_what_needs_somebody_with_the_reason(world, browse, size):
    page = browse(world.cookies["viewer"], size)
    page.goto(world.acme.home)
    attention = page.locator(".attention li")
    expect(attention.filter(has_text="/billing")).to_contain_text("The last 12 attempts failed.")
    expect(attention.filter(has_text="/old")).to_contain_text("Nothing is sent to it any more.")
    expect(attention.filter(has_text="/warehouse")).to_have_count(0)
    attention.filter(has_text="/billing").get_by_role("link", name="See the failures").click()
    expect(page.locator("tbody tr")).to_have_count(6)


@pytest.mark.parametrize("role", ["viewer"])
def test_who_may_only_look_is_shown_no_way_to_change_anything(world, browse, role, size):
    page = browse(world.cookies[role], size)
    paths = ["", "/endpoints", f"/endpoints/{world.names['warehouse']}", f"/endpoints/{world.names['paused']}",
             f"/deliveries/{world.names['failed']}", f"/replays/{world.names['replay']}", "/event-types/order.created"]
    for path in paths:
        page.goto(world.acme.home + path)
        actions = page.locator("main form[method=post], main a[href*='/new'], main a[href$='/edit'], main a[href*='/replay?'], "
                               "main a[href$='/replay'], main a[href$='/delete'], main a[href$='/rotate']")
        expect(actions).to_have_count(0)
    mark = page.locator("input[name=csrf]").first.input_value()
    for path in ["pause", "rotate", "delete", "edit", "test", "replay"]:
        answer = world.server.send(f"{world.acme.home}/endpoints/{world.names['warehouse']}/{path}",
                                   {"csrf": mark, "confirm": f"{world.well}/warehouse"}, world.cookies[role])
        assert answer.status == 403, path


def test_a_dangerous_step_is_never_a_form_on_another_page(world, browse):
    page = browse(world.operator)
    page.goto("/operator")
    look = """(page, path) => ({
      path,
      actions: [...page.querySelectorAll('form[method=post]')].map((form) => form.getAttribute('action')),
      told: page.querySelectorAll('main .danger-zone li').length,
      typed: page.querySelectorAll('#f-confirm[required]').length,
      cancel: [...page.querySelectorAll('main a')].filter((link) => link.textContent === 'Cancel').length,
    })"""
    dangerous = ("delete", "revoke", "rotate")
    for name, found in read_all(page, of_role("operator", world.names), look).items():
        for action in found["actions"]:
            assert action.rsplit("/", 1)[1] not in dangerous or action == found["path"], f"{name}: {action}"
        # Each of them has its own page, which says what will happen, and asks for a name. A rotation destroys nothing. A
        # portal link has no name, and lives for a day at most.
        if found["path"].endswith(dangerous):
            expected = 0 if found["path"].endswith("rotate") or "/portal-links/" in found["path"] else 1
            assert found["told"] >= 2 and found["typed"] == expected and found["cancel"] == 1, f"{name}: {found}"
